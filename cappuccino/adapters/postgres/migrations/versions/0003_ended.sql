-- Portfolios that share a process: one of them can end while the process, whose exit code says nothing of it, goes on.

alter table account
    add column ended text;  -- why its process trades it no more; empty: its venue's tape ended

-- Nobody but the holder, or whoever could be it now, says so; an account that was refused before it was taken has a row then.
create function account_ended(p_name text, p_venue text, p_holder text, p_reason text) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into account (name, venue) values (p_name, p_venue) on conflict (name) do nothing;
    update account set ended = p_reason
     where name = p_name
       and (holder is null or holder = p_holder or expires_at is null or expires_at <= clock_timestamp());
end
$$;

-- An account is of one venue for good: what it did in a rehearsal is no part of what it does with real money.
create or replace function account_acquire(p_name text, p_venue text, p_holder text, p_seconds double precision)
returns table (token bigint, halted_reason text)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
begin
    insert into account (name, venue) values (p_name, p_venue) on conflict (name) do nothing;
    if exists (select from account a where a.name = p_name and a.venue <> p_venue) then
        raise exception 'account % is of venue %, not of %: give the Trader an account of its own', p_name,
            (select a.venue from account a where a.name = p_name), p_venue using errcode = 'CP007';
    end if;
    return query
        update account a
           set holder = p_holder, token = a.token + 1, expires_at = clock_timestamp() + make_interval(secs => p_seconds),
               ended = null
         where a.name = p_name
           and (a.holder is null or a.holder = p_holder or a.expires_at is null or a.expires_at <= clock_timestamp())
     returning a.token, a.halted_reason;
end
$$;

drop trigger notify_halt on account;
create trigger notify_halt after update on account for each row
    when ((old.halted_reason, old.token, old.ended) is distinct from (new.halted_reason, new.token, new.ended))
    execute function notify_row('name');

revoke execute on function account_ended(text, text, text, text) from public;
grant execute on function account_ended(text, text, text, text) to cappuccino_trader;
