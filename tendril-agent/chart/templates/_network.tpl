{{- /* Names are looked up, and these ports may be reached anywhere. */ -}}
{{- define "tendril-agent.egress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
- ports:
    {{- range . | uniq }}
    - port: {{ . }}
    {{- end }}
{{- end -}}

{{- define "tendril-agent.podIdentity" -}}
# EKS Pod Identity hands out credentials on each node here. The node's own (169.254.169.254) stay out of reach.
- to:
    - ipBlock:
        cidr: 169.254.170.23/32
    - ipBlock:
        cidr: fd00:ec2::23/128
  ports:
    - port: 80
{{- end -}}
