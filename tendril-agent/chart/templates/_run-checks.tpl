{{- /* The values of runs: what belongs to launcher kubernetes, and to it alone. */ -}}
{{- define "tendril-agent.checkRuns" -}}
{{- if include "tendril-agent.inPods" . -}}
{{- include "tendril-agent.checkLauncher" . -}}
{{- include "tendril-agent.checkAccounts" . -}}
{{- include "tendril-agent.checkRunValues" . -}}
{{- include "tendril-agent.checkLease" . -}}
{{- include "tendril-agent.checkRunEnvironment" . -}}
{{- else -}}
{{- if .Values.runs.serviceAccountMap -}}
{{- fail (printf "runs.serviceAccountMap is for launcher kubernetes, and launcher is %q: set launcher to kubernetes, or leave it out." .Values.launcher) -}}
{{- end -}}
{{- if .Values.admissionPolicy.enabled -}}
{{- fail (printf "admissionPolicy.enabled is for launcher kubernetes, and launcher is %q: an agent without pods of its own creates nothing in the cluster. Leave it out." .Values.launcher) -}}
{{- end -}}
{{- if gt (int .Values.concurrency) 64 -}}
{{- fail (printf "concurrency is %d: one agent runs at most 64 jobs. Add replicas, or set launcher to kubernetes, which takes 1000." (int .Values.concurrency)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Values that say something about an agent in which Terraform runs. */ -}}
{{- define "tendril-agent.checkLauncher" -}}
{{- if eq .Values.state.backend "local" -}}
{{- fail "launcher kubernetes needs a Terraform state that outlives the pod of its run: set state.backend to s3, http or pg (and state.config)." -}}
{{- end -}}
{{- if .Values.keda.enabled -}}
{{- fail "keda.enabled is of no use with launcher kubernetes: each job is a pod of its own already. Leave it out; concurrency bounds their number." -}}
{{- end -}}
{{- if .Values.serviceMonitor.enabled -}}
{{- fail "serviceMonitor.enabled needs a Service, and with launcher kubernetes there is none: set podMonitor.enabled." -}}
{{- end -}}
{{- if .Values.aws.roleArn -}}
{{- fail "aws.roleArn would give a role to the agent's own pod, which runs no Terraform with launcher kubernetes: set it for each service account, as runs.serviceAccounts.annotations: {<name>: {eks.amazonaws.com/role-arn: …}}." -}}
{{- end -}}
{{- range $name, $value := dict "workLimit" .Values.workLimit "persistence.existingClaim" .Values.persistence.existingClaim "terminationGracePeriodSeconds" .Values.terminationGracePeriodSeconds -}}
{{- if $value -}}
{{- fail (printf "%s has no effect with launcher kubernetes: leave it out. The disk of a run is ephemeral-storage in runs.resources, and timing.applyCancelGrace is its time to end." $name) -}}
{{- end -}}
{{- end -}}
{{- with .Values.agentToken -}}
{{- if not (hasPrefix "tdl_" .) -}}
{{- fail "agentToken is a machine token (a JWT), and every run would get it whole: launcher kubernetes needs an API key (tdl_…), which is exchanged for a token of each run." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkAccounts" -}}
{{- $map := .Values.runs.serviceAccountMap -}}
{{- if not $map -}}
{{- fail "launcher kubernetes needs runs.serviceAccountMap, which says which stacks have which service account: for instance [{stacks: [prod], serviceAccount: runs-prod}, {stacks: [\"*\"], serviceAccount: runs}]." -}}
{{- end -}}
{{- $own := include "tendril-agent.serviceAccount" . -}}
{{- $plans := include "tendril-agent.planAccount" . -}}
{{- $isNear := eq (include "tendril-agent.runNamespace" .) .Release.Namespace -}}
{{- range $index, $rule := $map -}}
{{- $where := printf "runs.serviceAccountMap, rule %d" (add1 $index) -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$" $rule.serviceAccount) -}}
{{- fail (printf "%s: %q is no name of a service account: lower case letters, digits, - and ., and neither begins nor ends with - or a dot." $where $rule.serviceAccount) -}}
{{- end -}}
{{- if and $isNear (eq $rule.serviceAccount $own) -}}
{{- fail (printf "%s: %s is the agent's own service account, with which a run could start pods: name another one." $where $own) -}}
{{- end -}}
{{- if eq $rule.serviceAccount $plans -}}
{{- fail (printf "%s: %s is the service account with which plans are stored: name another one." $where $plans) -}}
{{- end -}}
{{- include "tendril-agent.checkQuantities" (list $where ($rule.resources | default dict)) -}}
{{- end -}}
{{- $accounts := include "tendril-agent.runAccounts" . | fromJsonArray -}}
{{- range $name, $_ := .Values.runs.serviceAccounts.annotations -}}
{{- if not (has $name $accounts) -}}
{{- fail (printf "runs.serviceAccounts.annotations has %s, which no rule of runs.serviceAccountMap names: there are %s." $name (join ", " $accounts)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.runs.serviceAccounts.annotations (not .Values.runs.serviceAccounts.create) -}}
{{- fail "runs.serviceAccounts.annotations are of service accounts that the chart makes: set runs.serviceAccounts.create, or annotate yours yourself." -}}
{{- end -}}
{{- end -}}

{{- /* A list: where it stands, and what has requests and limits. */ -}}
{{- define "tendril-agent.checkQuantities" -}}
{{- $where := first . -}}
{{- range $kind := list "requests" "limits" -}}
{{- range $name, $amount := get (last $) $kind | default dict -}}
{{- if not (or (has $name (list "cpu" "memory" "ephemeral-storage")) (contains "/" $name)) -}}
{{- fail (printf "%s: %s.%s is no resource: write cpu, memory, ephemeral-storage, or one with a domain such as example.com/gpu." $where $kind $name) -}}
{{- end -}}
{{- if and (kindIs "string" $amount) (not (regexMatch "^[0-9]+([.][0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$" $amount)) -}}
{{- fail (printf "%s: %s.%s is %q: write a quantity such as 500m, 2 or 4Gi." $where $kind $name $amount) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkRunValues" -}}
{{- include "tendril-agent.checkQuantities" (list "runs.resources" .Values.runs.resources) -}}
{{- range $name := list "namespace" "planVolumeClaim" -}}
{{- with get $.Values.runs $name -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" .) -}}
{{- fail (printf "runs.%s is %q: a name is made of a-z, 0-9 and -, and neither begins nor ends with -." $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "\\s" .Values.runs.image -}}
{{- fail (printf "runs.image is %q: write an image with its tag or digest, such as registry.example.com/tendril-agent:1.2.3." .Values.runs.image) -}}
{{- end -}}
{{- range $name := list "startDeadline" "keepFinished" -}}
{{- $time := get $.Values.runs $name -}}
{{- if or (not (regexMatch "^([0-9]+[smh])+$" $time)) (regexMatch "^(0+[smh])*([0-9]s)?$" $time) -}}
{{- fail (printf "runs.%s is %q: write a time of at least 10s, such as 90s, 10m or 1h30m." $name $time) -}}
{{- end -}}
{{- end -}}
{{- range .Values.runs.extraVolumes -}}
{{- if has .name (list "tendril-attempt" "tendril-plan" "git-token" "infracost" "registry-tokens") -}}
{{- fail (printf "runs.extraVolumes: %s is a volume of the agent's: take another name." .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkLease" -}}
{{- range $name := list "leaseDuration" "leaseRenewDeadline" -}}
{{- $time := get $.Values.dispatcher $name -}}
{{- if not (regexMatch "^[1-9][0-9]{1,4}s$" $time) -}}
{{- fail (printf "dispatcher.%s is %q: write a time of at least 10s in seconds, such as 60s." $name $time) -}}
{{- end -}}
{{- end -}}
{{- $duration := .Values.dispatcher.leaseDuration -}}
{{- $deadline := .Values.dispatcher.leaseRenewDeadline -}}
{{- if ge (trimSuffix "s" $deadline | int) (trimSuffix "s" $duration | int) -}}
{{- fail (printf "dispatcher.leaseRenewDeadline is %s and dispatcher.leaseDuration %s: it must be less, or two agents would be at work at once." $deadline $duration) -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkRunEnvironment" -}}
{{- $set := dict -}}
{{- range concat (include "tendril-agent.dispatcherAlone" . | fromJsonArray) (list "HOME" "TMPDIR" "TENDRIL_PLAN_STORE" "TENDRIL_PLAN_DIR" "TENDRIL_PLAN_SECRET" "TENDRIL_PLAN_ACCESS" "TENDRIL_JOB_UID" "TENDRIL_POD_UID") -}}
{{- $_ := set $set . "the agent gives each run its own" -}}
{{- end -}}
{{- range include "tendril-agent.runEnvironment" . | fromYamlArray -}}
{{- $_ := set $set .name "the chart has a value for it" -}}
{{- end -}}
{{- range $variable := .Values.runs.extraEnv -}}
{{- with get $set .name -}}
{{- fail (printf "runs.extraEnv: %s cannot be set: %s." $variable.name .) -}}
{{- end -}}
{{- $_ := set $set .name "it is there already" -}}
{{- end -}}
{{- end -}}
