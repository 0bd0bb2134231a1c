# What a cluster needs once it has nodes. These are Deployments: without a node to run on, EKS calls them DEGRADED and an apply waits for
# twenty minutes in vain. That is why they are neither in eks-cluster, which has no nodes, nor in eks-node-group, of which there may be several.

data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

data "aws_eks_cluster" "this" {
  name = var.cluster_name
}

# The version that AWS installs by default with this version of Kubernetes.
data "aws_eks_addon_version" "this" {
  for_each = toset(["coredns", "aws-ebs-csi-driver"])

  addon_name         = each.key
  kubernetes_version = data.aws_eks_cluster.this.version
}

# EKS installed one when it made the cluster, and would never upgrade it.
resource "aws_eks_addon" "dns" {
  cluster_name                = var.cluster_name
  addon_name                  = "coredns"
  addon_version               = data.aws_eks_addon_version.this["coredns"].version
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
  # A destroy of this template does not take the names from a living cluster.
  preserve = true
}

resource "aws_eks_addon" "storage" {
  cluster_name                = var.cluster_name
  addon_name                  = "aws-ebs-csi-driver"
  addon_version               = data.aws_eks_addon_version.this["aws-ebs-csi-driver"].version
  configuration_values        = jsonencode({ defaultStorageClass = { enabled = var.default_storage_class } })
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  # The nodes' own credentials are out of a pod's reach, so the driver has a role of its own.
  pod_identity_association {
    role_arn        = aws_iam_role.storage.arn
    service_account = "ebs-csi-controller-sa"
  }

  depends_on = [aws_iam_role_policy_attachment.storage]
}

data "aws_iam_policy_document" "storage_trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    # Of this account's cluster alone.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/eks-cluster-name"
      values   = [var.cluster_name]
    }
  }
}

resource "aws_iam_role" "storage" {
  # A prefix has at most 38 characters.
  name_prefix        = "${substr(var.cluster_name, 0, 24)}-eks-storage-"
  description        = "The EBS storage driver of the EKS cluster ${var.cluster_name}"
  assume_role_policy = data.aws_iam_policy_document.storage_trust.json
}

resource "aws_iam_role_policy_attachment" "storage" {
  role       = aws_iam_role.storage.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}
