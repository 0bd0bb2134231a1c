-- $1 role, $2 claims: for the rest of this transaction.
select
    set_config('request.jwt.claims', $2, true),
    set_config('role', $1, true)
