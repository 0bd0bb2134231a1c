# The AWS role of the Tendril agent in this cluster: by EKS Pod Identity, or by IRSA. It has the rights of agent_policy_arns.

locals {
  agent  = var.agent_identity == "none" ? 0 : 1
  pod    = var.agent_identity == "pod-identity" ? 1 : 0
  irsa   = var.agent_identity == "irsa" ? 1 : 0
  issuer = replace(aws_eks_cluster.this.identity[0].oidc[0].issuer, "https://", "")
}

resource "aws_iam_role" "agent" {
  count = local.agent

  name_prefix          = "${substr(var.name, 0, 20)}-tendril-agent-"
  description          = "The Tendril agent in the EKS cluster ${var.name}"
  assume_role_policy   = local.pod == 1 ? data.aws_iam_policy_document.agent_pod.json : data.aws_iam_policy_document.agent_irsa[0].json
  permissions_boundary = var.agent_permissions_boundary_arn
  # An apply may take long; the credentials are renewed meanwhile, but not beyond this.
  max_session_duration = 43200
  # What was attached by hand does not hold up a destroy.
  force_detach_policies = true
}

resource "aws_iam_role_policy_attachment" "agent" {
  for_each = toset(local.agent == 1 ? var.agent_policy_arns : [])

  role       = aws_iam_role.agent[0].name
  policy_arn = each.value
}

# Pod Identity: an association. The add-on that answers on each node is in addons.tf.

data "aws_iam_policy_document" "agent_pod" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    # Of this account's clusters alone.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/eks-cluster-name"
      values   = [var.name]
    }
  }
}

resource "aws_eks_pod_identity_association" "agent" {
  count = local.pod

  cluster_name    = aws_eks_cluster.this.name
  namespace       = var.agent_namespace
  service_account = var.agent_service_account
  role_arn        = aws_iam_role.agent[0].arn
}

# IRSA: the cluster's own issuer of tokens.

resource "aws_iam_openid_connect_provider" "this" {
  count = local.irsa

  url            = "https://${local.issuer}"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_policy_document" "agent_irsa" {
  count = local.irsa

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.this[0].arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = ["system:serviceaccount:${var.agent_namespace}:${var.agent_service_account}"]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}
