# The region's zones, without local ones. An account may have fewer than the region, and with other letters.
data "aws_availability_zones" "here" {
  #checkov:skip=CKV_AWS_394:A new zone changes nothing: it is used when it is named, or when there were fewer than three.
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  letters = ["a", "b", "c", "d", "e", "f"]
  there   = zipmap(data.aws_availability_zones.here.names, data.aws_availability_zones.here.zone_ids)
  # EKS places no control plane in these.
  without_eks = ["use1-az3", "usw1-az2", "cac1-az3"]
  usable      = [for letter in local.letters : letter if !contains(local.without_eks, lookup(local.there, "${var.region}${letter}", local.without_eks[0]))]
  chosen      = var.zones == null ? slice(local.usable, 0, min(3, length(local.usable))) : var.zones
  # Zone -> the place of its ranges, which depends on its letter alone.
  place    = { for letter in local.chosen : "${var.region}${letter}" => index(local.letters, letter) }
  zones    = sort(keys(local.place))
  nat_zone = { none = [], single = slice(local.zones, 0, 1), per-zone = local.zones }[var.nat]
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }

  lifecycle {
    precondition {
      condition     = alltrue([for zone in local.zones : contains(keys(local.there), zone)])
      error_message = "zones: this account has ${join(", ", sort(keys(local.there)))} in ${var.region}."
    }

    precondition {
      condition     = length(local.zones) >= 2
      error_message = "zones: fewer than two zones of ${var.region} suit EKS in this account, so name them: it has ${join(", ", sort(keys(local.there)))}."
    }
  }
}

# Without rules: what forgets to name a security group of its own can neither be reached nor reach anything.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-default-closed" }
}

resource "aws_subnet" "public" {
  for_each = local.place

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.cidr, 4, each.value)
  map_public_ip_on_launch = false

  tags = {
    Name                     = "${var.name}-public-${each.key}"
    "kubernetes.io/role/elb" = "1"
  }
}

resource "aws_subnet" "private" {
  for_each = local.place

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 4, each.value + 8)

  tags = {
    Name                              = "${var.name}-private-${each.key}"
    "kubernetes.io/role/internal-elb" = "1"
  }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.name }
}

resource "aws_eip" "nat" {
  #checkov:skip=CKV2_AWS_19:It belongs to a NAT gateway, not to an instance.
  for_each = toset(local.nat_zone)

  domain = "vpc"

  tags       = { Name = "${var.name}-nat-${each.key}" }
  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  for_each = toset(local.nat_zone)

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "private" {
  for_each = local.place

  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_route" "nat" {
  for_each = var.nat == "none" ? {} : local.place

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[var.nat == "single" ? local.zones[0] : each.key].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

# Free of charge, and keeps traffic to S3 off the NAT gateways.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = concat([aws_route_table.public.id], values(aws_route_table.private)[*].id)

  tags = { Name = "${var.name}-s3" }
}
