-- The road to real money: a promotion and its audit row are one write, and a live trader's permit follows from the rows.

alter table promotion
    add column account text,   -- of the live Trader that a `started` row lets trade
    add column terms text,     -- digest of that Trader's whole spec
    add column step integer,   -- of capital; 0 is the dry run
    add constraint promotion_action
        check (action in ('requested', 'approved', 'refused', 'revoked', 'started', 'demoted')),
    add constraint promotion_started
        check ((action = 'started') = (account is not null) and (account is null) = (terms is null)
               and (account is null) = (step is null));

alter table account
    add column reserve_usd numeric,  -- cash of the venue account that is not this trader's to use
    add column terms text;           -- of the live Trader that takes it: without a standing permit it is halted

-- Append a row and audit it, or neither. False: the newest row of this approval says the same already.
create function promotion_append(p_deployment text, p_subject text, p_bundle text, p_action text, p_actor text, p_reason text,
                                 p_account text, p_terms text, p_step integer, p_object text) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    v_last promotion%rowtype;
    v_standing text;
begin
    lock table promotion in share row exclusive mode;  -- one writer at a time: what is checked here holds when it is written
    select * into v_last from promotion where deployment_uid = p_deployment and subject = p_subject order by id desc limit 1;
    if (v_last.action, v_last.actor, v_last.reason, v_last.account, v_last.terms, v_last.step)
       is not distinct from (p_action, p_actor, p_reason, p_account, p_terms, p_step) then
        return false;
    end if;
    select action into v_standing from promotion
     where deployment_uid = p_deployment and subject = p_subject and action in ('approved', 'revoked', 'demoted')
     order by id desc limit 1;
    if p_action = 'started' and v_standing is distinct from 'approved' then
        raise exception 'step % of account % has no standing approval', p_step, p_account using errcode = 'CP005';
    end if;
    if p_action = 'started' and exists (select from account where name = p_account) then
        raise exception 'account % exists already: a step of real money begins with one of its own', p_account using errcode = 'CP006';
    end if;
    insert into promotion (deployment_uid, subject, bundle_digest, action, actor, reason, account, terms, step)
    values (p_deployment, p_subject, p_bundle, p_action, p_actor, p_reason, p_account, p_terms, p_step);
    perform audit_append(p_actor, 'promotion ' || p_action, p_object, jsonb_strip_nulls(jsonb_build_object(
        'bundle', p_bundle, 'promotion', p_subject, 'reason', p_reason, 'account', p_account, 'terms', p_terms, 'step', p_step)));
    return true;
end
$$;

-- Whether `p_account` may trade under `p_terms`: 'standing', 'ended' (it may sell what it holds), or null.
create function live_permit(p_account text, p_terms text) returns text
language sql stable security definer set search_path = public, pg_temp as $$
    select case when exists (
                    select from promotion s where s.action = 'started' and s.account = p_account and s.terms = p_terms
                       and not exists (select from promotion p where p.deployment_uid = s.deployment_uid and p.id > s.id
                                          and p.action in ('approved', 'revoked', 'started', 'demoted')))
                then 'standing'
                when exists (select from promotion s where s.account = p_account) then 'ended' end
$$;

-- Why an account may buy nothing: its halt, or a live Trader without a standing permit.
create function account_halted(p_account account) returns text
language sql stable set search_path = public, pg_temp as $$
    select coalesce((p_account).halted_reason,
                    case when (p_account).terms is not null
                          and live_permit((p_account).name, (p_account).terms) is distinct from 'standing'
                         then 'no approval stands for what this live trader is' end)
$$;

-- The holder says what it is, once; from then on the account is halted whenever no permit stands for that.
create function account_terms(p_name text, p_holder text, p_token bigint, p_terms text) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    update account set terms = p_terms where name = p_name and holder = p_holder and token = p_token and terms is null;
    return (select account_halted(a) from account a where a.name = p_name);
end
$$;

create or replace function account_renew(p_name text, p_holder text, p_token bigint, p_seconds double precision)
returns table (held boolean, halted_reason text)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
begin
    return query
        update account a set expires_at = clock_timestamp() + make_interval(secs => p_seconds)
         where a.name = p_name and a.holder = p_holder and a.token = p_token
     returning true, account_halted(a);
    if not found then
        return query select false, (select account_halted(a) from account a where a.name = p_name);
    end if;
end
$$;

create or replace function intent_guard() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    v_account account%rowtype;
    v_halted text;
begin
    -- share lock: once a halt or a new holder has committed, no intent that was judged before it can still commit
    select * into v_account from account where name = new.account for share;
    if v_account.token is distinct from new.token or v_account.expires_at is null
       or v_account.expires_at <= clock_timestamp() then
        raise exception 'intent % carries token %, the lease of account % is token % until %',
            new.client_order_id, new.token, new.account, v_account.token, v_account.expires_at using errcode = 'CP001';
    end if;
    v_halted := account_halted(v_account);
    if v_halted is not null and (new.side <> 'sell'
       or new.reason not in ('stop_loss', 'trailing_stop', 'take_profit', 'time_limit', 'flatten')) then
        raise exception 'account % is halted (%): intent % is not protective',
            new.account, v_halted, new.client_order_id using errcode = 'CP002';
    end if;
    return new;
end
$$;

-- Who halts is who the session is: a trader cannot write another name into the audit chain than that of the account's holder.
create or replace function account_halt(p_name text, p_reason text, p_actor text) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    v_account account%rowtype;
    v_actor text := p_actor;
begin
    if coalesce(trim(p_reason), '') = '' then
        raise exception 'halting % needs a reason', p_name using errcode = 'CP004';
    end if;
    select * into v_account from account where name = p_name for update;
    if not found then
        raise exception 'account % does not exist', p_name using errcode = 'CP003';
    end if;
    if current_setting('role') = 'cappuccino_trader' or not pg_has_role(session_user, 'cappuccino_operator', 'member') then
        v_actor := 'trader/' || coalesce(v_account.holder, 'unknown');
    end if;
    if v_account.halted_reason is null then  -- the first reason stands
        update account set halted_reason = p_reason where name = p_name;
        perform audit_append(v_actor, 'halt', 'account/' || p_name, jsonb_build_object('reason', p_reason));
    end if;
end
$$;

-- What of the venue account's cash is not this trader's: the first value stands; only the holder may set it.
create function account_reserve(p_name text, p_holder text, p_token bigint, p_usd numeric) returns numeric
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    update account set reserve_usd = p_usd
     where name = p_name and holder = p_holder and token = p_token and reserve_usd is null;
    return (select reserve_usd from account where name = p_name);
end
$$;

revoke insert on promotion from cappuccino_operator;
revoke execute on function audit_append(text, text, text, jsonb) from cappuccino_operator;  -- a row comes with its act, or not
revoke execute on function
    promotion_append(text, text, text, text, text, text, text, text, integer, text),
    live_permit(text, text),
    account_halted(account),
    account_terms(text, text, bigint, text),
    account_reserve(text, text, bigint, numeric) from public;
grant execute on function promotion_append(text, text, text, text, text, text, text, text, integer, text)
    to cappuccino_operator;
grant execute on function live_permit(text, text) to cappuccino_trader, cappuccino_operator;
grant execute on function account_reserve(text, text, bigint, numeric), account_terms(text, text, bigint, text)
    to cappuccino_trader;
