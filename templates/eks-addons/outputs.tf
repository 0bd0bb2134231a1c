output "versions" {
  description = "Which version of each add-on is installed."
  value = {
    (aws_eks_addon.dns.addon_name)     = aws_eks_addon.dns.addon_version
    (aws_eks_addon.storage.addon_name) = aws_eks_addon.storage.addon_version
  }
}

output "storage_role_arn" {
  description = "Role of the storage driver."
  value       = aws_iam_role.storage.arn
}
