{{/* What the operator puts into the pods of its workloads: read as CAPPUCCINO_PODS. */}}
{{- define "cappuccino.pods" -}}
{{- $fullname := include "cappuccino.fullname" . -}}
{{- $keys := dict -}}
{{- range $role := list "trial" "gate" "trader" "ingest" -}}
{{- $_ := set $keys $role (include "cappuccino.databaseKey" (dict "root" $ "role" $role)) -}}
{{- end -}}
{{- $images := dict -}}
{{- range $program := list "train" "trader" -}}
{{- $_ := set $images $program (include "cappuccino.image" (dict "root" $ "image" $program)) -}}
{{- end -}}
{{- $store := dict "url" (.Values.artifacts.url | default "file:///artifacts") "claim" (include "cappuccino.artifactsClaim" .) "secret" .Values.artifacts.existingSecret -}}
{{- $exchange := dict "url" "" "secret" "" -}}
{{- if .Values.exchange.enabled -}}
{{- $exchange = dict "url" (printf "http://%s-exchange.%s.svc:8700" $fullname .Release.Namespace) "secret" (printf "%s-exchange" $fullname) -}}
{{- end -}}
images: {{ toYaml $images | nindent 2 }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
imagePullSecrets: {{ toYaml .Values.images.pullSecrets | nindent 2 }}
serviceAccountName: {{ $fullname }}-workload
database:
  secret: {{ include "cappuccino.databaseSecret" . }}
  keys: {{ toYaml $keys | nindent 4 }}
artifacts: {{ toYaml $store | nindent 2 }}
exchange: {{ toYaml $exchange | nindent 2 }}
environment: {{ toYaml .Values.workload.environment | nindent 2 }}
programs:
  {{- range $program, $resources := .Values.workload.programs }}
  {{ $program }}:
    {{- range $bound, $quantities := $resources }}
    {{ $bound }}:
      {{- range $resource, $quantity := $quantities }}
      {{ $resource }}: {{ toString $quantity | quote }}
      {{- else }} {}
      {{- end }}
    {{- end }}
  {{- end }}
nodeSelector: {{ toYaml .Values.workload.nodeSelector | nindent 2 }}
tolerations: {{ toYaml .Values.workload.tolerations | nindent 2 }}
deletionGraceSeconds: {{ .Values.workload.deletionGraceSeconds }}
{{- end }}
