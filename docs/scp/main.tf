# Only Firebreak's role undoes what Firebreak did. Apply in the organization's management account.

variable "target_ids" {
  description = "Accounts or organizational units, e.g. ou-ab12-cdefghij"
  type        = set(string)
}

resource "aws_organizations_policy" "firebreak_guard" {
  name        = "firebreak-guard"
  description = "Only Firebreak's role undoes what Firebreak did"
  type        = "SERVICE_CONTROL_POLICY"
  content     = file("${path.module}/scp.json")
}

resource "aws_organizations_policy_attachment" "firebreak_guard" {
  for_each  = var.target_ids
  policy_id = aws_organizations_policy.firebreak_guard.id
  target_id = each.value
}
