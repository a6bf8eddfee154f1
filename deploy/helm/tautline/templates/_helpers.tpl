{{- define "tautline.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tautline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tautline.labels" -}}
{{ include "tautline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The port of config.http_server.internal_listen. */}}
{{- define "tautline.internalPort" -}}
{{- $listen := required "config.http_server.internal_listen is needed: probes are sent there" .Values.config.http_server.internal_listen }}
{{- if or (hasPrefix "127." $listen) (hasPrefix "[::1]" $listen) }}
{{- fail (printf "config.http_server.internal_listen is %s, where no probe gets to: expected an address such as 0.0.0.0:9000" $listen) }}
{{- end }}
{{- $listen | splitList ":" | last -}}
{{- end }}

{{- /* What can't work is said here, and not by a pod that never is ready. */}}
{{- define "tautline.check" -}}
{{- range list "replicas" "replicaCount" "autoscaling" }}
{{- if hasKey $.Values . }}
{{- fail (printf "there is no value %s: the memory engine belongs to one process, and each of several would tell its own clients alone what is published" .) }}
{{- end }}
{{- end }}
{{- $config := .Values.config }}
{{- range list "http_api.key" "client.token.hmac_secret_key" "client.subscription_token.hmac_secret_key" "admin.password" }}
{{- $value := $config }}
{{- range splitList "." . }}{{ if kindIs "map" $value }}{{ $value = get $value . }}{{ end }}{{ end }}
{{- if $value }}
{{- fail (printf "config.%s is a secret, and a ConfigMap is no place for one: expected its file in secret.files, such as TAUTLINE_%s_FILE" . (. | replace "." "_" | upper)) }}
{{- end }}
{{- end }}
{{- if not .Values.persistence.enabled }}
{{- $kept := list }}
{{- if dig "events" "enabled" false $config }}{{ $kept = append $kept "events" }}{{ end }}
{{- if dig "revocation" "directory" "" $config }}{{ $kept = append $kept "revocation.directory" }}{{ end }}
{{- if dig "http_server" "tls" "acme" "enabled" false $config }}{{ $kept = append $kept "http_server.tls.acme" }}{{ end }}
{{- with $kept }}
{{- fail (printf "config.%s has to outlive the pod, in which nothing can be written: set persistence.enabled" (join ", config." .)) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Two pods can't have one directory: each locks what it keeps. */}}
{{- define "tautline.strategy" -}}
{{- if .Values.persistence.enabled }}Recreate{{ else }}{{ .Values.strategy }}{{ end }}
{{- end }}

{{- define "tautline.internalName" -}}
{{ include "tautline.name" . | trunc 54 | trimSuffix "-" }}-internal
{{- end }}

{{- /* Which of a pod's paths are clients' doors; the first is a prefix. The backend's API and the metrics stay inside. */}}
{{- define "tautline.doors" -}}
/connection /emulation /ws /events /lines /history /publish
{{- end }}
