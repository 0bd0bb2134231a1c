locals {
  # RDS wants a tenth of room at least; 0 is storage that does not grow.
  growth      = var.max_storage_gib == null ? min(65536, max(100, var.storage_gib * 2)) : var.max_storage_gib
  max_storage = local.growth >= ceil(var.storage_gib * 1.1) ? local.growth : 0
}

resource "aws_db_subnet_group" "this" {
  name       = var.name
  subnet_ids = var.subnet_ids
}

resource "aws_security_group" "this" {
  name        = "${var.name}-postgres"
  description = "Who may connect to the database ${var.name}"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-postgres" }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = toset(var.client_security_group_ids)

  security_group_id            = aws_security_group.this.id
  referenced_security_group_id = each.value
  description                  = "PostgreSQL from ${each.value}"
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432

  tags = { Name = each.value }
}

resource "aws_db_parameter_group" "this" {
  name_prefix = "${var.name}-"
  family      = "postgres${var.engine_version}"
  description = "Settings of the database ${var.name}"
  # Until the maintenance window in which the version is raised, the instance uses the old group: RDS would refuse to delete it, and the
  # apply would fail. It stays behind, costs nothing, and can be deleted by hand.
  skip_destroy = true

  # Connections without TLS are refused.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  # Changes of the schema are logged, and what takes longer than a second.
  parameter {
    name  = "log_statement"
    value = "ddl"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_157:The template's user decides about a standby; there is one unless switched off.
  #checkov:skip=CKV_AWS_293:The template's user decides about protection; it is on unless switched off.
  #checkov:skip=CKV_AWS_354:Performance Insights takes the same key as the storage; without one, the account's own.
  identifier     = var.name
  engine         = "postgres"
  engine_version = var.engine_version
  instance_class = var.instance_class

  storage_type          = "gp3"
  allocated_storage     = var.storage_gib
  max_allocated_storage = local.max_storage
  storage_encrypted     = true
  kms_key_id            = var.kms_key_arn

  db_name              = var.database
  username             = var.username
  parameter_group_name = aws_db_parameter_group.this.name

  # One of the two. What is written with _wo is sent and not stored in the state.
  manage_master_user_password   = var.password == null ? true : null
  master_user_secret_kms_key_id = var.password == null ? var.kms_key_arn : null
  password_wo                   = var.password
  password_wo_version           = var.password == null ? null : var.password_version
  # For people and jobs that have a role instead of a password.
  iam_database_authentication_enabled = true

  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.this.id]
  publicly_accessible    = false
  multi_az               = var.multi_az

  backup_retention_period   = var.backup_days
  copy_tags_to_snapshot     = true
  delete_automated_backups  = false
  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = !var.final_snapshot
  final_snapshot_identifier = "${var.name}-last"

  auto_minor_version_upgrade  = true
  allow_major_version_upgrade = true
  apply_immediately           = var.apply_immediately
  # No surcharge for old versions: RDS upgrades the instance when its version is no longer supported.
  engine_lifecycle_support = "open-source-rds-extended-support-disabled"

  performance_insights_enabled    = true
  performance_insights_kms_key_id = var.kms_key_arn
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
  monitoring_interval             = 60
  monitoring_role_arn             = aws_iam_role.monitoring.arn

  depends_on = [aws_iam_role_policy_attachment.monitoring]
}

data "aws_partition" "current" {}

data "aws_iam_policy_document" "monitoring_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["monitoring.rds.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "monitoring" {
  # A prefix has at most 38 characters.
  name_prefix        = "${substr(var.name, 0, 25)}-monitoring-"
  assume_role_policy = data.aws_iam_policy_document.monitoring_trust.json
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}
