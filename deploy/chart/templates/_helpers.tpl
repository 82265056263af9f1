{{/* What the names of all objects begin with. With -migrate- and the revision, a name has 63 characters at most. */}}
{{- define "nern.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name | trunc 45 | trimSuffix "-" }}
{{- end }}

{{- define "nern.secret" -}}
{{ .Values.existingSecret | default (include "nern.fullname" .) }}
{{- end }}

{{- define "nern.s3Secret" -}}
{{ .Values.s3.existingSecret | default (printf "%s-s3" (include "nern.fullname" .)) }}
{{- end }}

{{/* The image of a process, and when it is pulled: (list . "api"). */}}
{{- define "nern.image" -}}
{{- $root := index . 0 }}
{{- $image := $root.Values.image }}
{{- with (index $root.Values (index . 1)).image }}
{{- if .repository }}
{{- $image = . }}
{{- end }}
{{- end -}}
image: {{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- with $root.Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{/* The labels of every object. */}}
{{- define "nern.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: nern
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The labels that select the pods of all processes of a release. */}}
{{- define "nern.selector" -}}
app.kubernetes.io/name: nern
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The settings that are no secrets. */}}
{{- define "nern.settings" -}}
NERN_HOST: 0.0.0.0
NERN_DATA_DIR: /data
{{- if .Values.monitoring.enabled }}
NERN_METRICS_PORT: "9464"
{{- end }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}

{{/* The variables of the object store. */}}
{{- define "nern.storeVariables" -}}
{{- if .Values.dev.enabled }}
- {name: AWS_ALLOW_HTTP, value: "true"}
{{- end }}
{{- if .Values.s3.enabled }}
- {name: AWS_ACCESS_KEY_ID, valueFrom: {secretKeyRef: {name: {{ include "nern.s3Secret" . | quote }}, key: access-key-id}}}
- {name: AWS_SECRET_ACCESS_KEY, valueFrom: {secretKeyRef: {name: {{ include "nern.s3Secret" . | quote }}, key: secret-access-key}}}
- {name: AWS_ENDPOINT, valueFrom: {secretKeyRef: {name: {{ include "nern.s3Secret" . | quote }}, key: endpoint, optional: true}}}
- {name: AWS_REGION, valueFrom: {secretKeyRef: {name: {{ include "nern.s3Secret" . | quote }}, key: region, optional: true}}}
{{- end }}
{{- end }}

{{/* Where the pods of a process may run, and with which credentials their images are pulled: (list . "api"). */}}
{{- define "nern.placement" -}}
{{- $root := index . 0 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with index $root.Values (index . 1) }}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The rule for connections to a store: (list . "database" "postgres" 5432) is to where the values say, or to a pod of dev. */}}
{{- define "nern.toStore" -}}
{{- $root := index . 0 }}
{{- if $root.Values.dev.enabled -}}
- to:
    - podSelector:
        matchLabels:
          app.kubernetes.io/name: nern-{{ index . 2 }}
          app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
  ports: [{port: {{ index . 3 }}}]
{{- else -}}
{{- with index $root.Values.network (index . 1) -}}
- ports:
    {{- range .ports }}
    - port: {{ . }}
    {{- end }}
  {{- with .to }}
  to: {{ toJson . }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
