{{- define "nemotrt.labels" -}}
{app.kubernetes.io/name: nemotrt, app.kubernetes.io/instance: {{ .Release.Name | quote }}}
{{- end }}

{{- define "nemotrt.metadata" -}}
{name: {{ .Release.Name | quote }}, namespace: {{ .Release.Namespace | quote }}, labels: {{ include "nemotrt.labels" . }}}
{{- end }}
