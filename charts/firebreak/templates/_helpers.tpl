{{- define "firebreak.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Short enough that every suffix used in this chart still fits a name of 63 characters. */}}
{{- define "firebreak.fullname" -}}
{{- $name := include "firebreak.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "firebreak.selectorLabels" -}}
app.kubernetes.io/name: {{ include "firebreak.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "firebreak.labels" -}}
{{ include "firebreak.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "firebreak.serviceAccountName" -}}
{{- default (include "firebreak.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- /* The Secret with the MAC keys; empty where there is none. */}}
{{- define "firebreak.macKeySecret" -}}
{{- $made := ternary (printf "%s-mac-key" (include "firebreak.fullname" .)) "" .Values.macKey.generate }}
{{- default $made .Values.macKey.existingSecret }}
{{- end }}

{{- /* The match condition of every admission policy: the rules are for everyone but the controller. */}}
{{- define "firebreak.notTheController" -}}
- name: not-the-controller
  expression: request.userInfo.username != 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "firebreak.serviceAccountName" . }}'
{{- end }}
