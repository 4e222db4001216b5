{{/* The PodSpec of the migration: it tries again until the database is there. It runs before the chart's ServiceAccounts exist. */}}
{{- define "cappuccino.migrateSpec" -}}
{{- $logins := or .Values.database.embedded.enabled .Values.database.logins -}}
{{ include "cappuccino.podSpec" . }}
automountServiceAccountToken: false
restartPolicy: OnFailure
containers:
  - name: migrate
    {{- include "cappuccino.container" (dict "root" . "image" "trader") | nindent 4 }}
    args:
      - database
      - migrate
      {{- if $logins }}
      - --logins
      - /logins
      {{- end }}
    env:
      {{- include "cappuccino.databaseUrl" (dict "root" . "role" "migrator") | nindent 6 }}
    resources:
      requests: {cpu: 50m, memory: 128Mi}
    volumeMounts:
      {{- include "cappuccino.scratchMount" . | nindent 6 }}
      {{- if $logins }}
      - {name: logins, mountPath: /logins, readOnly: true}
      {{- end }}
volumes:
  {{- include "cappuccino.scratchVolume" . | nindent 2 }}
  {{- if $logins }}
  - name: logins
    secret:
      secretName: {{ include "cappuccino.databaseAdminSecret" . }}
      items:
        {{- range list "operator" "ingest" "trial" "gate" "trader" "dashboard" }}
        - {key: {{ include "cappuccino.databaseKey" (dict "root" $ "role" .) }}, path: {{ . }}}
        {{- end }}
  {{- end }}
{{- end }}
