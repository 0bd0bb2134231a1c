data "aws_partition" "current" {}

locals {
  # Those of the provider reach neither the instances nor their disks.
  tags = merge(var.tags, { "tendril:template" = "eks-node-group" })
  # EKS cannot change these of a group. A changed one gives the group another name, so that the new nodes are there before the old ones go.
  fixed      = jsonencode([sort(var.subnet_ids), var.architecture, var.instance_types, var.capacity])
  group_name = "${var.name}-${substr(sha256(local.fixed), 0, 8)}"
  # Nodes as they are now, whoever decided it; of the group that is replaced, too.
  now     = [for group in data.aws_eks_node_group.now : group.scaling_config[0].desired_size]
  desired = var.desired_size == null ? min(max(concat([var.min_size], local.now)...), var.max_size) : var.desired_size
}

# The cluster's version: nodes follow it when this template is run again.
data "aws_eks_cluster" "this" {
  name = var.cluster_name
}

# The newest image of that version, with its patches.
data "aws_ssm_parameter" "release" {
  name = "/aws/service/eks/optimized-ami/${data.aws_eks_cluster.this.version}/amazon-linux-2023/${var.architecture}/standard/recommended/release_version"
}

data "aws_eks_node_groups" "there" {
  cluster_name = var.cluster_name
}

data "aws_eks_node_group" "now" {
  for_each = toset([for name in data.aws_eks_node_groups.there.names : name if can(regex("^${var.name}-[0-9a-f]{8}$", name))])

  cluster_name    = var.cluster_name
  node_group_name = each.value
}

resource "aws_eks_node_group" "this" {
  cluster_name    = var.cluster_name
  node_group_name = local.group_name
  version         = data.aws_eks_cluster.this.version
  release_version = nonsensitive(data.aws_ssm_parameter.release.value)
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = var.subnet_ids

  ami_type       = { x86_64 = "AL2023_x86_64_STANDARD", arm64 = "AL2023_ARM_64_STANDARD" }[var.architecture]
  capacity_type  = var.capacity
  instance_types = var.instance_types
  labels         = var.labels

  scaling_config {
    min_size     = var.min_size
    max_size     = var.max_size
    desired_size = local.desired
  }

  update_config {
    max_unavailable_percentage = 33
  }

  node_repair_config {
    enabled = true
  }

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  lifecycle {
    create_before_destroy = true

    precondition {
      condition     = var.max_size >= var.min_size
      error_message = "max_size (${var.max_size}) must be at least min_size (${var.min_size})."
    }

    precondition {
      condition     = local.desired >= var.min_size && local.desired <= var.max_size
      error_message = "desired_size (${local.desired}) must be from min_size (${var.min_size}) to max_size (${var.max_size})."
    }
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}

resource "aws_launch_template" "this" {
  name_prefix = "${var.name}-"
  description = "Nodes of ${var.name} in the EKS cluster ${var.cluster_name}"

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = var.disk_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
    # One hop ends at the node: a pod has the role of its service account, never the node's.
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = true
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(local.tags, { Name = "${var.cluster_name}-${var.name}" })
  }

  tag_specifications {
    resource_type = "volume"
    tags          = merge(local.tags, { Name = "${var.cluster_name}-${var.name}" })
  }

  lifecycle {
    create_before_destroy = true
  }
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "node" {
  name_prefix        = "${substr(var.name, 0, 24)}-eks-node-"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/${each.value}"
}
