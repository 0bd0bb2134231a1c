# What runs on each node. These are DaemonSets: they are ready while there are no nodes yet. What needs a node to become ready is the
# business of the template eks-addons.

locals {
  addons = {
    # Without it network policies are not enforced, and that of the agent's chart has no effect.
    vpc-cni    = jsonencode({ enableNetworkPolicy = "true" })
    kube-proxy = null
    # Hands out the credentials of Pod Identity: to the agent, and to the storage driver whatever the agent uses.
    eks-pod-identity-agent = null
  }
}

# The version that AWS installs by default with this version of Kubernetes: it changes with the cluster's, and with AWS's mind.
data "aws_eks_addon_version" "this" {
  for_each = local.addons

  addon_name         = each.key
  kubernetes_version = var.kubernetes_version
}

resource "aws_eks_addon" "this" {
  for_each = local.addons

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = data.aws_eks_addon_version.this[each.key].version
  configuration_values        = each.value
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}
