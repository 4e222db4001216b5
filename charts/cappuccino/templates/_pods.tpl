{{/* Parts of pods: all are restricted, with a read-only root file system, under user 65532. */}}

{{/* dict of `root` and `image`, a key of images. */}}
{{- define "cappuccino.image" -}}
{{- $images := .root.Values.images -}}
{{ with $images.registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ get $images .image }}:{{ $images.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* The fields of a PodSpec that all pods of the chart share. A volume is given to the group once: PostgreSQL refuses data that others may read. */}}
{{- define "cappuccino.podSpec" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The fields of a container that all share: dict of `root` and `image`. */}}
{{- define "cappuccino.container" -}}
image: {{ include "cappuccino.image" . | quote }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "cappuccino.scratchMount" -}}
- {name: scratch, mountPath: /tmp}
{{- end }}

{{- define "cappuccino.scratchVolume" -}}
- {name: scratch, emptyDir: {}}
{{- end }}

{{/* The environment variable of the record: dict of `root` and `role`. */}}
{{- define "cappuccino.databaseUrl" -}}
- name: CAPPUCCINO_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "cappuccino.databaseAdminSecret" .root }}
      key: {{ include "cappuccino.databaseKey" . }}
{{- end }}

{{/* A data volume by a `persistence` block: dict of `root`, `persistence` and `component`. */}}
{{- define "cappuccino.dataVolume" -}}
- name: data
{{- if .persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ .persistence.existingClaim | default (printf "%s-%s" (include "cappuccino.fullname" .root) .component) }}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end }}

{{/* The claim that is made when a `persistence` block asks for one: the same dict. It stays when the release is uninstalled. */}}
{{- define "cappuccino.dataClaim" -}}
{{- if and .persistence.enabled (not .persistence.existingClaim) }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "cappuccino.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{ include "cappuccino.labels" . | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: [{{ .accessMode | default "ReadWriteOnce" }}]
  {{- with .persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .persistence.size }}
{{- end }}
{{- end }}
