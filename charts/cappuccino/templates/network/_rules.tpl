{{- define "cappuccino.egressToNames" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
{{- end }}

{{/* A policy sees the API server behind its Service: by address and port, which differ by cluster; so by port. */}}
{{- define "cappuccino.egressToApi" -}}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{- define "cappuccino.egressToRecord" -}}
{{- if .Values.database.embedded.enabled -}}
- ports: [{protocol: TCP, port: 5432}]
  to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}
      podSelector:
        matchLabels: {{ include "cappuccino.selector" (dict "root" . "component" "database") | nindent 10 }}
{{- else -}}
- ports:
    {{- range .Values.networkPolicy.databasePorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .Values.networkPolicy.databasePeers }}
  to: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Peers: the workloads of the watched namespaces, with more labels. */}}
{{- define "cappuccino.fromWorkloads" -}}
- namespaceSelector:
    {{- if .root.Values.watch.allNamespaces }} {}
    {{- else }}
    matchExpressions:
      - {key: kubernetes.io/metadata.name, operator: In, values: {{ include "cappuccino.namespaces" .root }}}
    {{- end }}
  podSelector:
    matchLabels:
      {{- include "cappuccino.workloadSelector" .root | nindent 6 }}
      {{- with .labels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end }}
