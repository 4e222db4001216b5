-- Rules that the database keeps whoever writes: fences and halts, the audit chain, wake-ups, and grants.
-- Functions that write on behalf of a role are SECURITY DEFINER, owned by the migrator, with a fixed search path.

create sequence object_version;  -- resourceVersion: one order over all objects

-- --- audit: a hash chain ---------------------------------------------------------------------------

create function audit_digest(p_previous bytea, p_seq bigint, p_actor text, p_action text, p_subject text, p_body jsonb,
                             p_recorded_at timestamptz) returns bytea
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    -- jsonb's text form is canonical: keys sorted, duplicates gone, one way of spacing
    select sha256(p_previous || convert_to(jsonb_build_array(
        p_seq, p_actor, p_action, p_subject, p_body,
        to_char(p_recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text, 'UTF8'))
$$;

create function audit_append(p_actor text, p_action text, p_subject text, p_body jsonb) returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    v_seq bigint;
    v_previous bytea;
    v_at timestamptz;
begin
    lock table audit in share row exclusive mode;  -- one writer at a time: the chain has no branches
    select a.seq, a.hash into v_seq, v_previous from audit a order by a.seq desc limit 1;
    v_seq := coalesce(v_seq, 0) + 1;
    v_previous := coalesce(v_previous, decode(repeat('00', 32), 'hex'));
    v_at := clock_timestamp();
    insert into audit (seq, actor, action, subject, body, recorded_at, previous_hash, hash)
    values (v_seq, p_actor, p_action, p_subject, p_body, v_at, v_previous,
            audit_digest(v_previous, v_seq, p_actor, p_action, p_subject, p_body, v_at));
    return v_seq;
end
$$;

-- --- accounts: one holder at a time, and halts -----------------------------------------------------

create function account_acquire(p_name text, p_venue text, p_holder text, p_seconds double precision)
returns table (token bigint, halted_reason text)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
begin
    insert into account (name, venue) values (p_name, p_venue) on conflict (name) do nothing;
    return query
        update account a
           set holder = p_holder, token = a.token + 1, expires_at = clock_timestamp() + make_interval(secs => p_seconds)
         where a.name = p_name
           and (a.holder is null or a.holder = p_holder or a.expires_at is null or a.expires_at <= clock_timestamp())
     returning a.token, a.halted_reason;
end
$$;

create function account_renew(p_name text, p_holder text, p_token bigint, p_seconds double precision)
returns table (held boolean, halted_reason text)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
begin
    return query
        update account a set expires_at = clock_timestamp() + make_interval(secs => p_seconds)
         where a.name = p_name and a.holder = p_holder and a.token = p_token
     returning true, a.halted_reason;
    if not found then
        return query select false, (select a.halted_reason from account a where a.name = p_name);
    end if;
end
$$;

create function account_release(p_name text, p_holder text, p_token bigint) returns void
language sql security definer set search_path = public, pg_temp as $$
    update account set expires_at = clock_timestamp() where name = p_name and holder = p_holder and token = p_token
$$;

-- The capital that losses are measured from: the first value stands; only the holder may set it.
create function account_baseline(p_name text, p_holder text, p_token bigint, p_usd numeric) returns numeric
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    update account set baseline_usd = p_usd
     where name = p_name and holder = p_holder and token = p_token and baseline_usd is null;
    return (select baseline_usd from account where name = p_name);
end
$$;

create function account_halt(p_name text, p_reason text, p_actor text) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    v_halted text;
begin
    if coalesce(trim(p_reason), '') = '' then
        raise exception 'halting % needs a reason', p_name using errcode = 'CP004';
    end if;
    select halted_reason into v_halted from account where name = p_name for update;
    if not found then
        raise exception 'account % does not exist', p_name using errcode = 'CP003';
    end if;
    if v_halted is null then  -- the first reason stands
        update account set halted_reason = p_reason where name = p_name;
        perform audit_append(p_actor, 'halt', 'account/' || p_name, jsonb_build_object('reason', p_reason));
    end if;
end
$$;

create function account_resume(p_name text, p_reason text, p_actor text) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    v_halted text;
begin
    if coalesce(trim(p_reason), '') = '' then
        raise exception 'resuming % needs a reason', p_name using errcode = 'CP004';
    end if;
    select halted_reason into v_halted from account where name = p_name for update;
    if not found then
        raise exception 'account % does not exist', p_name using errcode = 'CP003';
    end if;
    if v_halted is not null then
        update account set halted_reason = null where name = p_name;
        perform audit_append(p_actor, 'resume', 'account/' || p_name,
                             jsonb_build_object('reason', p_reason, 'halted_reason', v_halted));
    end if;
end
$$;

create function intent_guard() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    v_account account%rowtype;
begin
    -- share lock: once a halt or a new holder has committed, no intent that was judged before it can still commit
    select * into v_account from account where name = new.account for share;
    if v_account.token is distinct from new.token or v_account.expires_at is null
       or v_account.expires_at <= clock_timestamp() then
        raise exception 'intent % carries token %, the lease of account % is token % until %',
            new.client_order_id, new.token, new.account, v_account.token, v_account.expires_at using errcode = 'CP001';
    end if;
    if v_account.halted_reason is not null
       and new.reason not in ('stop_loss', 'trailing_stop', 'take_profit', 'time_limit', 'flatten') then
        raise exception 'account % is halted (%): intent % is not protective',
            new.account, v_account.halted_reason, new.client_order_id using errcode = 'CP002';
    end if;
    return new;
end
$$;

create trigger intent_guard before insert on intent for each row execute function intent_guard();

-- --- wake-ups: NOTIFY cappuccino, '[table, key...]' ------------------------------------------------

create function notify_row() returns trigger
language plpgsql set search_path = public, pg_temp as $$
declare
    v_row jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
    v_payload jsonb := jsonb_build_array(tg_table_name);
    v_column text;
begin
    foreach v_column in array tg_argv loop
        v_payload := v_payload || jsonb_build_array(v_row ->> v_column);
    end loop;
    perform pg_notify('cappuccino', v_payload::text);
    return null;
end
$$;

-- An object's owners are part of its payload: when it is deleted nothing else tells who they were.
create function notify_object() returns trigger
language plpgsql set search_path = public, pg_temp as $$
declare
    v_row object := case when tg_op = 'DELETE' then old else new end;
begin
    perform pg_notify('cappuccino', jsonb_build_array('object', v_row.kind, v_row.namespace, v_row.name, (
        select coalesce(jsonb_agg(jsonb_build_array(o ->> 'kind', o ->> 'name')), '[]'::jsonb)
          from jsonb_array_elements(coalesce(v_row.metadata -> 'ownerReferences', '[]'::jsonb)) o))::text);
    return null;
end
$$;

create trigger notify_object after insert or update or delete on object for each row execute function notify_object();
create trigger notify_workload after insert or update or delete on workload
    for each row execute function notify_row('name');
create trigger notify_snapshot after insert on dataset_snapshot for each row execute function notify_row('dataset_uid');
create trigger notify_trial after insert or update on trial for each row execute function notify_row('study_uid', 'number');
create trigger notify_report after insert on trial_report for each row execute function notify_row('study_uid', 'number');
create trigger notify_result after insert on trial_result for each row execute function notify_row('study_uid', 'number');
create trigger notify_evidence after insert on evidence
    for each row execute function notify_row('deployment_uid', 'bundle_digest');
create trigger notify_promotion after insert on promotion for each row execute function notify_row('deployment_uid');
create trigger notify_account after insert on account for each row execute function notify_row('name');
create trigger notify_halt after update on account for each row
    when (old.halted_reason is distinct from new.halted_reason or old.token is distinct from new.token)
    execute function notify_row('name');

-- --- who writes -------------------------------------------------------------------------------------

revoke execute on all functions in schema public from public;
grant usage on schema public to cappuccino_ingest, cappuccino_trial, cappuccino_gate, cappuccino_trader,
    cappuccino_operator, cappuccino_dashboard;

grant select on all tables in schema public to cappuccino_operator, cappuccino_dashboard;
alter default privileges in schema public grant select on tables to cappuccino_operator, cappuccino_dashboard;
alter default privileges revoke execute on functions from public;

grant select, insert, update, delete on object, workload, event to cappuccino_operator;
grant usage on sequence object_version to cappuccino_operator;
grant insert on study, trial, promotion to cappuccino_operator;
grant update (state, reason, objective, bundle_digest, started_at, finished_at) on trial to cappuccino_operator;

grant select on snapshot, dataset_snapshot, gap to cappuccino_ingest, cappuccino_trial, cappuccino_gate, cappuccino_trader;
grant insert on snapshot, dataset_snapshot, gap to cappuccino_ingest;
grant update (end_at, state, recorded_at) on gap to cappuccino_ingest;

grant select on study, trial, trial_report, trial_result to cappuccino_trial, cappuccino_gate;
grant insert on trial_report, trial_result to cappuccino_trial;

grant select on evidence, window_opening, promotion to cappuccino_gate;
grant insert on evidence, window_opening to cappuccino_gate;

grant select on account, intent, order_event, fill, decision, equity, trader_state to cappuccino_trader, cappuccino_gate;
grant insert on intent, order_event, fill, decision, equity, trader_state to cappuccino_trader;
grant update (state, recorded_at) on trader_state to cappuccino_trader;  -- the one thing a trader may overwrite

grant execute on function audit_append(text, text, text, jsonb) to cappuccino_operator;
grant execute on function audit_digest(bytea, bigint, text, text, text, jsonb, timestamptz)
    to cappuccino_operator, cappuccino_dashboard;
grant execute on function account_acquire(text, text, text, double precision),
    account_renew(text, text, bigint, double precision),
    account_release(text, text, bigint),
    account_baseline(text, text, bigint, numeric) to cappuccino_trader;
grant execute on function account_halt(text, text, text) to cappuccino_trader, cappuccino_operator;
grant execute on function account_resume(text, text, text) to cappuccino_operator;
