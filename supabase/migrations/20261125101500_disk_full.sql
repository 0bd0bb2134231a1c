-- A job that wrote more to its agent's disk than there is room for is told apart from others.

comment on column public.deployments.error_code is 'AGENT_LOST, AGENT_STOPPED, CANCELLED, TERRAFORM_FAILED, CONFIG_INVALID, TEMPLATE_NOT_FOUND, STATE_LOCKED, STATE_NOT_STORED, PLAN_CHANGED, DISK_FULL, INTERNAL.';
