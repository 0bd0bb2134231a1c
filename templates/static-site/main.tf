resource "aws_cloudfront_distribution" "this" {
  #checkov:skip=CKV_AWS_68:A firewall costs more than most static sites; web_acl_arn puts one in front.
  #checkov:skip=CKV2_AWS_47:A firewall costs more than most static sites; web_acl_arn puts one in front.
  #checkov:skip=CKV_AWS_86:Access logs go to log_bucket when one is given.
  #checkov:skip=CKV_AWS_310:One bucket is the only origin; S3 is in several zones itself.
  #checkov:skip=CKV_AWS_374:The site is for the whole world.
  #checkov:skip=CKV_AWS_174:TLS 1.2 is the least where a certificate is given; CloudFront's own domain does not let one choose.
  #checkov:skip=CKV2_AWS_42:A certificate comes with domains; without them the site has CloudFront's.
  enabled             = true
  comment             = var.name
  aliases             = var.domain_names
  default_root_object = "index.html"
  http_version        = "http2and3"
  is_ipv6_enabled     = true
  price_class         = var.price_class
  web_acl_id          = var.web_acl_arn

  origin {
    origin_id                = "site"
    domain_name              = aws_s3_bucket.this.bucket_regional_domain_name
    origin_access_control_id = aws_cloudfront_origin_access_control.this.id
  }

  default_cache_behavior {
    target_origin_id           = "site"
    allowed_methods            = ["GET", "HEAD", "OPTIONS"]
    cached_methods             = ["GET", "HEAD"]
    viewer_protocol_policy     = "redirect-to-https"
    compress                   = true
    cache_policy_id            = data.aws_cloudfront_cache_policy.optimized.id
    response_headers_policy_id = aws_cloudfront_response_headers_policy.this.id

    # A single-page application has one page, and its paths are its own affair.
    dynamic "function_association" {
      for_each = aws_cloudfront_function.index

      content {
        event_type   = "viewer-request"
        function_arn = function_association.value.arn
      }
    }
  }

  # What the bucket does not have is answered as 404: the policy lets CloudFront list it, otherwise S3 would say 403.
  custom_error_response {
    error_code            = 404
    response_code         = var.single_page_app ? 200 : 404
    response_page_path    = var.single_page_app ? "/index.html" : "/404.html"
    error_caching_min_ttl = 60
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    cloudfront_default_certificate = var.certificate_arn == null
    acm_certificate_arn            = var.certificate_arn
    ssl_support_method             = var.certificate_arn == null ? null : "sni-only"
    minimum_protocol_version       = var.certificate_arn == null ? null : "TLSv1.2_2021"
  }

  dynamic "logging_config" {
    for_each = var.log_bucket == null ? [] : [var.log_bucket]

    content {
      bucket = "${logging_config.value}.s3.amazonaws.com"
      prefix = "${var.name}/"
    }
  }

  lifecycle {
    precondition {
      condition     = length(var.domain_names) == 0 || var.certificate_arn != null
      error_message = "domain_names need a certificate_arn: an ACM certificate in us-east-1 that covers them."
    }
  }
}

# S3 knows objects, not folders: /docs/ is asked for as docs/index.html.
resource "aws_cloudfront_function" "index" {
  count = var.single_page_app ? 0 : 1

  # A name has at most 64 characters.
  name    = "${substr(var.name, 0, 58)}-index"
  comment = "index.html of each folder of ${var.name}"
  runtime = "cloudfront-js-2.0"
  publish = true
  code    = file("${path.module}/index.js")
}

data "aws_cloudfront_cache_policy" "optimized" {
  name = "Managed-CachingOptimized"
}

resource "aws_cloudfront_origin_access_control" "this" {
  name                              = var.name
  description                       = "CloudFront reads the bucket ${var.name}"
  origin_access_control_origin_type = "s3"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

resource "aws_cloudfront_response_headers_policy" "this" {
  #checkov:skip=CKV_AWS_259:Preloading is a promise of the whole domain that cannot be taken back; its owner makes it.
  name = var.name

  security_headers_config {
    strict_transport_security {
      access_control_max_age_sec = 31536000
      include_subdomains         = var.hsts_subdomains
      override                   = true
    }

    content_security_policy {
      content_security_policy = var.content_security_policy
      override                = true
    }

    content_type_options {
      override = true
    }

    frame_options {
      frame_option = "DENY"
      override     = true
    }

    referrer_policy {
      referrer_policy = "strict-origin-when-cross-origin"
      override        = true
    }
  }
}

resource "aws_route53_record" "ipv4" {
  for_each = var.zone_id == null ? [] : toset(var.domain_names)

  zone_id = var.zone_id
  name    = each.value
  type    = "A"

  alias {
    name                   = aws_cloudfront_distribution.this.domain_name
    zone_id                = aws_cloudfront_distribution.this.hosted_zone_id
    evaluate_target_health = false
  }
}

resource "aws_route53_record" "ipv6" {
  for_each = var.zone_id == null ? [] : toset(var.domain_names)

  zone_id = var.zone_id
  name    = each.value
  type    = "AAAA"

  alias {
    name                   = aws_cloudfront_distribution.this.domain_name
    zone_id                = aws_cloudfront_distribution.this.hosted_zone_id
    evaluate_target_health = false
  }
}
