{{- /* What the schema cannot say: values that are right one by one and wrong together. Fails with what to do. */ -}}
{{- define "tendril-agent.checks" -}}
{{- include "tendril-agent.checkPods" . -}}
{{- include "tendril-agent.checkState" . -}}
{{- include "tendril-agent.checkNetwork" . -}}
{{- include "tendril-agent.checkEnvironment" . -}}
{{- end -}}

{{- define "tendril-agent.checkPods" -}}
{{- $least := add .Values.shutdown.grace 60 -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- if lt (int .) (int $least) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d: the kubelet would kill a running apply. It must be at least shutdown.grace and 60 s: %d. Or leave it out." (int .) (int $least)) -}}
{{- end -}}
{{- end -}}
{{- if and (include "tendril-agent.several" .) (eq .Values.state.backend "local") -}}
{{- fail "More than one replica needs a Terraform state that they share: set state.backend to s3, http or pg (and state.config)." -}}
{{- end -}}
{{- if and (include "tendril-agent.several" .) .Values.persistence.existingClaim -}}
{{- fail "persistence.existingClaim is one volume, and each replica needs its own: leave it out, or set replicas to 1 and keda.enabled to false." -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.prometheusAddress) -}}
{{- fail "keda.enabled needs keda.prometheusAddress: the length of the queue is one of the agent's metrics." -}}
{{- end -}}
{{- if and .Values.keda.enabled (lt (int .Values.keda.maxReplicas) (int .Values.keda.minReplicas)) -}}
{{- fail "keda.maxReplicas is less than keda.minReplicas." -}}
{{- end -}}
{{- if and .Values.aws.roleArn (not .Values.serviceAccount.create) -}}
{{- fail "aws.roleArn annotates the service account that the chart makes: set serviceAccount.create, or annotate yours yourself." -}}
{{- end -}}
{{- if and .Values.keda.enabled (lt (int .Values.shutdown.grace) 1800) -}}
{{- fail (printf "keda.enabled needs a shutdown.grace of at least 1800, it is %d: scaling down stops the agent with the highest number, and its running apply may go on for two thirds of the grace." (int .Values.shutdown.grace)) -}}
{{- end -}}
{{- $memory := include "tendril-agent.mebibytes" (dig "limits" "memory" "" .Values.resources) -}}
{{- if $memory -}}
{{- if lt (int64 $memory) (mul 1024 .Values.concurrency) -}}
{{- fail (printf "resources.limits.memory is %v with a concurrency of %d: each job needs 1Gi, and where memory runs out the kernel ends the agent together with every apply. Raise it to %dGi or more, or lower concurrency." .Values.resources.limits.memory (int .Values.concurrency) (add1 .Values.concurrency)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.workLimit .Values.persistence.enabled -}}
{{- if ge (include "tendril-agent.mebibytes" (trimSuffix "B" .Values.workLimit) | int64) (include "tendril-agent.mebibytes" .Values.persistence.size | int64) -}}
{{- fail (printf "workLimit is %s and persistence.size %s: a limit that the volume cannot reach is none. Lower it, or leave it out: it is 70 %% of the size then." .Values.workLimit .Values.persistence.size) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The agent refuses these at its start as well; said here, nothing is installed that cannot run. */ -}}
{{- define "tendril-agent.checkState" -}}
{{- $instead := dict "access_key" "AWS_ACCESS_KEY_ID" "secret_key" "AWS_SECRET_ACCESS_KEY" "token" "AWS_SESSION_TOKEN" "sse_customer_key" "AWS_SSE_CUSTOMER_KEY" "username" "TF_HTTP_USERNAME" "password" "TF_HTTP_PASSWORD" "client_private_key_pem" "TF_HTTP_CLIENT_PRIVATE_KEY_PEM" "conn_str" "PG_CONN_STR" -}}
{{- range $name, $_ := .Values.state.config -}}
{{- with get $instead $name -}}
{{- fail (printf "state.config.%s is a credential and would end up in saved plans: take it out, and set %s in extraEnv, from a Secret." $name .) -}}
{{- end -}}
{{- end -}}
{{- if not (include "tendril-agent.extra" (list . "TENDRIL_STATE_CONFIG")) -}}
{{- range $backend, $needed := dict "s3" "bucket" "http" "address" -}}
{{- if and (eq $.Values.state.backend $backend) (not (hasKey $.Values.state.config $needed)) -}}
{{- fail (printf "state.backend %s needs state.config.%s." $backend $needed) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkNetwork" -}}
{{- if .Values.networkPolicy.enabled -}}
{{- range $who := list "serviceMonitor" "keda" -}}
{{- if and (get $.Values $who).enabled (not $.Values.networkPolicy.metricsFrom) -}}
{{- fail (printf "%s.enabled needs networkPolicy.metricsFrom: without it nobody may read the metrics. For instance [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]." $who) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.state.backend "pg") (not .Values.networkPolicy.extraEgress) (eq (toJson .Values.networkPolicy.egressPorts) "[443]") -}}
{{- fail "state.backend pg needs a way to the database: add its port to networkPolicy.egressPorts ([443, 5432]), or a rule to networkPolicy.extraEgress." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkEnvironment" -}}
{{- $set := dict -}}
{{- range (include "tendril-agent.environment" . | fromYamlArray) -}}
{{- $_ := set $set .name "the chart has a value for it" -}}
{{- end -}}
{{- range $variable := .Values.extraEnv -}}
{{- with get $set .name -}}
{{- fail (printf "extraEnv: %s would be set twice: %s." $variable.name .) -}}
{{- end -}}
{{- $_ := set $set .name "it is there already" -}}
{{- end -}}
{{- end -}}

{{- /* Whether extraEnv has a variable: list, context and name. */ -}}
{{- define "tendril-agent.extra" -}}
{{- $name := last . -}}
{{- range (first .).Values.extraEnv -}}
{{- if eq .name $name -}}true{{- end -}}
{{- end -}}
{{- end -}}
