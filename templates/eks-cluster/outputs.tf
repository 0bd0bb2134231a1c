output "cluster_name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "endpoint" {
  description = "Where its API is."
  value       = aws_eks_cluster.this.endpoint
}

output "certificate_authority" {
  description = "Its certificate authority, in base64."
  value       = aws_eks_cluster.this.certificate_authority[0].data
}

output "security_group_id" {
  description = "Security group that control plane and nodes share."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

output "agent_role_arn" {
  description = "Role of the Tendril agent. With IRSA, annotate its service account: eks.amazonaws.com/role-arn."
  value       = one(aws_iam_role.agent[*].arn)
}
