{{/* Names and labels. Most take a dict of `root` (the chart's context) and `component`. */}}

{{- define "cappuccino.chart" -}}
{{ default .Chart.Name .Values.nameOverride }}
{{- end }}

{{- define "cappuccino.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains (include "cappuccino.chart" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "cappuccino.chart" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Name of something of the whole cluster: releases of different namespaces do not meet. */}}
{{- define "cappuccino.clusterwide" -}}
{{ .Release.Namespace }}-{{ include "cappuccino.fullname" . }}
{{- end }}

{{- define "cappuccino.selector" -}}
app.kubernetes.io/name: {{ include "cappuccino.chart" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "cappuccino.labels" -}}
{{ include "cappuccino.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What the operator puts on the pods of the workloads that it starts. */}}
{{- define "cappuccino.workloadSelector" -}}
app.kubernetes.io/managed-by: cappuccino
{{- end }}

{{/* Namespaces that are watched, as JSON; meaningless with watch.allNamespaces. */}}
{{- define "cappuccino.namespaces" -}}
{{ .Values.watch.namespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

{{/* Namespaces in which workloads run, as far as the chart may know them, as JSON: those that get their ServiceAccount and Secrets. */}}
{{- define "cappuccino.workloadNamespaces" -}}
{{- if .Values.watch.allNamespaces }}{{ list .Release.Namespace | toJson }}{{ else }}{{ include "cappuccino.namespaces" . }}{{ end }}
{{- end }}

{{- define "cappuccino.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "cappuccino.fullname" . }}-operator
{{- end }}

{{- define "cappuccino.artifactsClaim" -}}
{{- if not .Values.artifacts.url }}{{ .Values.artifacts.existingClaim | default (printf "%s-artifacts" (include "cappuccino.fullname" .)) }}{{ end }}
{{- end }}

{{/* Secret with the URLs of the workers' roles. */}}
{{- define "cappuccino.databaseSecret" -}}
{{ .Values.database.existingSecret | default (printf "%s-database" (include "cappuccino.fullname" .)) }}
{{- end }}

{{/* Secret with the URLs of migrator, operator and dashboard: the workers' namespaces need not have it. */}}
{{- define "cappuccino.databaseAdminSecret" -}}
{{ .Values.database.existingSecret | default (printf "%s-database-admin" (include "cappuccino.fullname" .)) }}
{{- end }}

{{/* Key of the URL of a role: dict of `root` and `role`. */}}
{{- define "cappuccino.databaseKey" -}}
{{ if .root.Values.database.existingSecret }}{{ get .root.Values.database.keys .role }}{{ else }}{{ .role }}{{ end }}
{{- end }}
