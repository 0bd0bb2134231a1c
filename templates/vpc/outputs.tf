output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "public_subnet_ids" {
  description = "Public subnets, one in each zone: for load balancers."
  value       = [for zone in local.zones : aws_subnet.public[zone].id]
}

output "private_subnet_ids" {
  description = "Private subnets, one in each zone: for everything else."
  value       = [for zone in local.zones : aws_subnet.private[zone].id]
}

output "nat_addresses" {
  description = "From which addresses private subnets reach the internet."
  value       = values(aws_eip.nat)[*].public_ip
}
