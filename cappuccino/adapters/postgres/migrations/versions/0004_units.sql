-- A venue account that is not empty when a live trader first takes it: what it holds then is not that trader's.

alter table account
    add column reserve_units jsonb;  -- units of the venue account that are not this trader's, by symbol, as text

update account set reserve_units = '{}' where reserve_usd is not null;  -- those began before, on an account without any

-- The first value stands; only the holder may set it; null only asks.
create function account_units(p_name text, p_holder text, p_token bigint, p_units jsonb) returns jsonb
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    update account set reserve_units = p_units
     where name = p_name and holder = p_holder and token = p_token and reserve_units is null;
    return (select reserve_units from account where name = p_name);
end
$$;

revoke execute on function account_units(text, text, bigint, jsonb) from public;
grant execute on function account_units(text, text, bigint, jsonb) to cappuccino_trader;
