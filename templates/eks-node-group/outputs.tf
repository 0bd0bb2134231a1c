output "node_group_arn" {
  description = "ARN of the group."
  value       = aws_eks_node_group.this.arn
}

output "node_role_arn" {
  description = "Role of the nodes."
  value       = aws_iam_role.node.arn
}

output "autoscaling_groups" {
  description = "Auto Scaling groups behind it."
  value       = flatten(aws_eks_node_group.this.resources[*].autoscaling_groups[*].name)
}
