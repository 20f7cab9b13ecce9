{{- define "atomix.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}-operator
{{- end }}

{{- /* Also the name of the Secret with its certificates. */ -}}
{{- define "atomix.webhookService" -}}
{{ include "atomix.name" . }}-webhook
{{- end }}

{{- /* The Secret with the authority that signs the certificates of nodes and runtimes. */ -}}
{{- define "atomix.authority" -}}
{{ include "atomix.name" . }}-authority
{{- end }}

{{- define "atomix.selectorLabels" -}}
app.kubernetes.io/name: atomix-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "atomix.labels" -}}
{{ include "atomix.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "atomix.image" -}}
{{- $root := index . 0 }}{{- $program := index . 1 }}{{- $whole := index . 2 -}}
{{- if $whole }}{{ $whole }}{{ else -}}
{{ $root.Values.image.registry }}/atomix-{{ $program }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}
