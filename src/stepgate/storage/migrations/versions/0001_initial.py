"""The first schema: runs and steps, their journal, approvals, change sets, model calls, workers."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE stepgate.workspaces (
        id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        pool text NOT NULL,
        root text COLLATE "C" NOT NULL,
        mode text NOT NULL,
        rev text,
        holder_run_id uuid,
        holder_step_id uuid,
        created_at timestamptz NOT NULL,
        CONSTRAINT pk_workspaces PRIMARY KEY (id),
        CONSTRAINT uq_workspaces_root UNIQUE (tenant_id, pool, root),
        CONSTRAINT ck_workspaces_holder CHECK ((holder_run_id IS NULL) = (holder_step_id IS NULL))
    )
    """,
    """
    CREATE TABLE stepgate.runs (
        id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        goal text NOT NULL,
        name text,
        workspace_id uuid NOT NULL,
        workspace_path text NOT NULL,
        workspace_mode text NOT NULL,
        pool text NOT NULL,
        labels jsonb NOT NULL,
        metadata text NOT NULL,
        limits text NOT NULL,
        requester text NOT NULL,
        requester_kind text NOT NULL,
        requester_channel text NOT NULL,
        parent_run_id uuid,
        parent_step_id uuid,
        plan text,
        status text NOT NULL,
        phase text NOT NULL,
        reason text,
        allowance text,
        plan_revision integer NOT NULL,
        steps_total integer NOT NULL,
        steps_done integer NOT NULL,
        model_calls integer NOT NULL DEFAULT 0,
        unknown_cost_calls integer NOT NULL DEFAULT 0,
        known_cost_usd numeric(20, 12) NOT NULL DEFAULT 0,
        tokens_input bigint,
        tokens_output bigint,
        tokens_cached bigint,
        tokens_reasoning bigint,
        workspace_rev text,
        wake_at timestamptz,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        started_at timestamptz,
        completed_at timestamptz,
        undone_at timestamptz,
        head_seq integer NOT NULL,
        head_hash bytea NOT NULL,
        worker_id uuid,
        lease_epoch integer NOT NULL DEFAULT 0,
        lost_leases integer NOT NULL DEFAULT 0,
        held_until timestamptz,
        held_for text,
        CONSTRAINT pk_runs PRIMARY KEY (id),
        CONSTRAINT fk_runs_workspace FOREIGN KEY (workspace_id) REFERENCES stepgate.workspaces (id),
        CONSTRAINT ck_runs_status CHECK (status IN (
            'created', 'planning', 'planned', 'queued', 'running', 'awaiting_approval', 'pausing', 'paused',
            'cancelling', 'cancelled', 'failing', 'failed', 'completed'
        )),
        CONSTRAINT ck_runs_phase CHECK (
            phase = status OR (status = 'awaiting_approval' AND (phase = 'queued' OR phase = 'running'))
        )
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX ix_runs_worker ON stepgate.runs (worker_id) WHERE worker_id IS NOT NULL",
    "CREATE INDEX ix_runs_labels ON stepgate.runs USING gin (labels jsonb_path_ops) WHERE labels <> '{}'::jsonb",
    "CREATE INDEX ix_runs_due ON stepgate.runs (pool, wake_at) WHERE worker_id IS NULL AND wake_at IS NOT NULL",
    "CREATE INDEX ix_runs_held ON stepgate.runs (workspace_id) WHERE held_for IS NOT NULL",
    """
    CREATE TABLE stepgate.steps (
        run_id uuid NOT NULL,
        id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        key text NOT NULL,
        number integer NOT NULL,
        type text NOT NULL,
        effect text NOT NULL,
        gate text NOT NULL,
        max_attempts integer NOT NULL,
        backoff_ms bigint NOT NULL,
        timeout_ms bigint,
        on_error text NOT NULL,
        why text,
        input_sha256 text NOT NULL,
        input_size bigint NOT NULL,
        input text NOT NULL,
        parent_id uuid,
        iteration integer NOT NULL DEFAULT 0,
        compensates uuid,
        status text NOT NULL,
        reason text,
        granted boolean NOT NULL,
        attempt integer NOT NULL,
        retry_at timestamptz,
        error text,
        output_sha256 text,
        output_size bigint,
        output text,
        change_set_id uuid,
        change_set_digest text,
        workspace_before text,
        workspace_after text,
        latency_ms bigint,
        model_calls integer NOT NULL DEFAULT 0,
        unknown_cost_calls integer NOT NULL DEFAULT 0,
        known_cost_usd numeric(20, 12) NOT NULL DEFAULT 0,
        tokens_input bigint,
        tokens_output bigint,
        tokens_cached bigint,
        tokens_reasoning bigint,
        cost_source text,
        model text,
        created_at timestamptz NOT NULL,
        started_at timestamptz,
        completed_at timestamptz,
        CONSTRAINT pk_steps PRIMARY KEY (run_id, id),
        CONSTRAINT fk_steps_run FOREIGN KEY (run_id) REFERENCES stepgate.runs (id),
        CONSTRAINT uq_steps_number UNIQUE (run_id, number),
        CONSTRAINT uq_steps_key UNIQUE (run_id, key),
        CONSTRAINT ck_steps_status CHECK (status IN (
            'pending', 'preparing', 'awaiting_approval', 'approved', 'running', 'computed', 'completed', 'failed',
            'skipped', 'rejected', 'cancelled', 'needs_review'
        )),
        CONSTRAINT ck_steps_effect CHECK (effect IN ('none', 'workspace', 'once')),
        CONSTRAINT ck_steps_gate CHECK (gate IN ('allow', 'ask'))
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE stepgate.step_needs (
        run_id uuid NOT NULL,
        step_id uuid NOT NULL,
        position smallint NOT NULL,
        need_id uuid NOT NULL,
        CONSTRAINT pk_step_needs PRIMARY KEY (run_id, step_id, position),
        CONSTRAINT fk_step_needs_step FOREIGN KEY (run_id, step_id) REFERENCES stepgate.steps (run_id, id),
        CONSTRAINT fk_step_needs_need FOREIGN KEY (run_id, need_id) REFERENCES stepgate.steps (run_id, id),
        CONSTRAINT ck_step_needs_other CHECK (step_id <> need_id)
    )
    """,
    """
    CREATE TABLE stepgate.events (
        run_id uuid NOT NULL,
        seq integer NOT NULL,
        type text NOT NULL,
        step_id uuid,
        actor text NOT NULL,
        at timestamptz NOT NULL,
        body text NOT NULL,
        prev_hash bytea NOT NULL,
        hash bytea NOT NULL,
        tx xid8 NOT NULL DEFAULT pg_current_xact_id(),
        CONSTRAINT pk_events PRIMARY KEY (run_id, seq),
        CONSTRAINT ck_events_chain CHECK (seq > 0 AND octet_length(prev_hash) = 32 AND octet_length(hash) = 32)
    ) PARTITION BY RANGE (run_id)
    """,
    """
    CREATE TABLE stepgate.approval_requests (
        run_id uuid NOT NULL,
        id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        step_id uuid NOT NULL,
        revision integer NOT NULL,
        action_hash text NOT NULL,
        risk text NOT NULL,
        rendering_sha256 text NOT NULL,
        rendering text NOT NULL,
        required integer NOT NULL,
        expires_at timestamptz,
        on_expiry text NOT NULL,
        policy_version text NOT NULL,
        matched_rules text NOT NULL,
        requested_at timestamptz NOT NULL,
        status text NOT NULL,
        CONSTRAINT pk_approval_requests PRIMARY KEY (run_id, id),
        CONSTRAINT uq_approval_requests_revision UNIQUE (run_id, step_id, revision),
        CONSTRAINT fk_approval_requests_step FOREIGN KEY (run_id, step_id) REFERENCES stepgate.steps (run_id, id),
        CONSTRAINT ck_approval_requests_status CHECK (status IN (
            'open', 'approved', 'rejected', 'expired', 'superseded', 'void'
        )),
        CONSTRAINT ck_approval_requests_counts CHECK (revision > 0 AND required > 0)
    )
    """,
    "CREATE INDEX ix_approval_requests_open ON stepgate.approval_requests (id) WHERE status = 'open'",
    """
    CREATE TABLE stepgate.approval_decisions (
        run_id uuid NOT NULL,
        request_id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        actor text NOT NULL,
        actor_kind text NOT NULL,
        channel text NOT NULL,
        on_behalf_of text,
        verdict text NOT NULL,
        reason text,
        "then" text,
        action_hash text NOT NULL,
        implied boolean NOT NULL,
        at timestamptz NOT NULL,
        CONSTRAINT pk_approval_decisions PRIMARY KEY (run_id, request_id),
        CONSTRAINT fk_approval_decisions_request FOREIGN KEY (run_id, request_id)
            REFERENCES stepgate.approval_requests (run_id, id),
        CONSTRAINT ck_approval_decisions_verdict CHECK (verdict IN ('approved', 'rejected'))
    )
    """,
    """
    CREATE TABLE stepgate.change_sets (
        run_id uuid NOT NULL,
        id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        step_id uuid NOT NULL,
        workspace_id uuid NOT NULL,
        digest text NOT NULL,
        created_at timestamptz NOT NULL,
        applied_seq integer,
        applied_at timestamptz,
        CONSTRAINT pk_change_sets PRIMARY KEY (run_id, id),
        CONSTRAINT fk_change_sets_step FOREIGN KEY (run_id, step_id) REFERENCES stepgate.steps (run_id, id),
        CONSTRAINT fk_change_sets_workspace FOREIGN KEY (workspace_id) REFERENCES stepgate.workspaces (id)
    )
    """,
    "CREATE INDEX ix_change_sets_id ON stepgate.change_sets (id)",
    """
    CREATE TABLE stepgate.change_set_files (
        run_id uuid NOT NULL,
        change_set_id uuid NOT NULL,
        position integer NOT NULL,
        path text NOT NULL,
        op text NOT NULL,
        before text,
        after text,
        CONSTRAINT pk_change_set_files PRIMARY KEY (run_id, change_set_id, position),
        CONSTRAINT fk_change_set_files_change_set FOREIGN KEY (run_id, change_set_id)
            REFERENCES stepgate.change_sets (run_id, id),
        CONSTRAINT ck_change_set_files_present CHECK (before IS NOT NULL OR after IS NOT NULL)
    )
    """,
    """
    CREATE TABLE stepgate.model_calls (
        run_id uuid NOT NULL,
        id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        step_id uuid NOT NULL,
        attempt integer NOT NULL,
        router text NOT NULL,
        provider text,
        request_hash text NOT NULL,
        model_asked text,
        model_used text,
        status text NOT NULL,
        cost_usd numeric(20, 12),
        cost_source text,
        tokens_input bigint,
        tokens_output bigint,
        tokens_cached bigint,
        tokens_reasoning bigint,
        latency_ms bigint,
        first_token_ms bigint,
        finish_reason text,
        http_status integer,
        request_ids text,
        cache_hit boolean,
        retries integer,
        called_at timestamptz NOT NULL,
        settled_at timestamptz,
        CONSTRAINT pk_model_calls PRIMARY KEY (run_id, id),
        CONSTRAINT fk_model_calls_step FOREIGN KEY (run_id, step_id) REFERENCES stepgate.steps (run_id, id),
        CONSTRAINT ck_model_calls_cost CHECK (cost_usd >= 0)
    )
    """,
    """
    CREATE TABLE stepgate.workers (
        id uuid NOT NULL,
        host text NOT NULL,
        pid integer NOT NULL,
        pools text[] NOT NULL,
        started_at timestamptz NOT NULL,
        lease_until timestamptz NOT NULL,
        CONSTRAINT pk_workers PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE stepgate.idempotency_keys (
        tenant_id text NOT NULL DEFAULT 'default',
        scope text NOT NULL,
        key text NOT NULL,
        request_sha256 text NOT NULL,
        run_id uuid,
        status integer NOT NULL,
        response text,
        created_at timestamptz NOT NULL,
        CONSTRAINT pk_idempotency_keys PRIMARY KEY (tenant_id, scope, key)
    )
    """,
    "CREATE INDEX ix_idempotency_keys_created ON stepgate.idempotency_keys (created_at)",
)

JOURNAL = (
    """
    CREATE FUNCTION stepgate.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'events are append-only: % refused', TG_OP USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    # Row triggers reach every partition, present and future; statement triggers do not.
    """
    CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON stepgate.events
        FOR EACH ROW EXECUTE FUNCTION stepgate.refuse_change()
    """,
    """
    CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON stepgate.events
        FOR EACH STATEMENT EXECUTE FUNCTION stepgate.refuse_change()
    """,
    "CREATE TABLE stepgate.events_default PARTITION OF stepgate.events DEFAULT",
    """
    CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON stepgate.events_default
        FOR EACH STATEMENT EXECUTE FUNCTION stepgate.refuse_change()
    """,
    # The smallest UUIDv7 of a moment: its first 48 bits are milliseconds since the epoch.
    """
    CREATE FUNCTION stepgate.first_id(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
    $$
    """,
    # Runs with the rights of its owner, because the application's role may not create tables.
    """
    CREATE FUNCTION stepgate.ensure_event_partitions(months integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        first timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
        month timestamp;
        name text;
        low uuid;
        high uuid;
        made integer := 0;
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('stepgate.ensure_event_partitions'));
        FOR ahead IN 0..months LOOP
            month := first + make_interval(months => ahead);
            name := 'events_p' || to_char(month, 'YYYY_MM');
            low := stepgate.first_id(month AT TIME ZONE 'UTC');
            high := stepgate.first_id((month + interval '1 month') AT TIME ZONE 'UTC');
            -- Events already in the default partition stay there: moving them would be a change.
            IF to_regclass('stepgate.' || name) IS NULL AND NOT EXISTS (
                SELECT FROM stepgate.events_default WHERE run_id >= low AND run_id < high
            ) THEN
                EXECUTE format(
                    'CREATE TABLE stepgate.%I PARTITION OF stepgate.events FOR VALUES FROM (%L) TO (%L)',
                    name, low, high
                );
                EXECUTE format(
                    'CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON stepgate.%I'
                    ' FOR EACH STATEMENT EXECUTE FUNCTION stepgate.refuse_change()', name
                );
                made := made + 1;
            END IF;
        END LOOP;
        RETURN made;
    END $$
    """,
    "REVOKE EXECUTE ON FUNCTION stepgate.ensure_event_partitions(integer) FROM PUBLIC",
    "SELECT stepgate.ensure_event_partitions(12)",
)

# A role is the whole server's: another database may have made it, and a migration may not be allowed to.
ROLE = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
        CREATE ROLE stepgate_app NOLOGIN;
        EXECUTE format('GRANT stepgate_app TO %I', current_user);
    END IF;
EXCEPTION
    WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL;
END $$
"""

GRANTS = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
        RETURN;
    END IF;
    GRANT USAGE ON SCHEMA stepgate TO stepgate_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON
        stepgate.workspaces, stepgate.runs, stepgate.steps, stepgate.step_needs, stepgate.approval_requests,
        stepgate.approval_decisions, stepgate.change_sets, stepgate.change_set_files, stepgate.model_calls,
        stepgate.workers, stepgate.idempotency_keys TO stepgate_app;
    GRANT SELECT, INSERT ON stepgate.events TO stepgate_app;
    GRANT SELECT ON stepgate.alembic_version TO stepgate_app;
    GRANT EXECUTE ON FUNCTION stepgate.ensure_event_partitions(integer) TO stepgate_app;
END $$
"""

REVOKES = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
        RETURN;
    END IF;
    REVOKE ALL ON SCHEMA stepgate FROM stepgate_app;
    REVOKE ALL ON stepgate.alembic_version FROM stepgate_app;
    BEGIN
        DROP ROLE stepgate_app;
    EXCEPTION
        WHEN insufficient_privilege OR dependent_objects_still_exist THEN NULL; -- another database still grants to it
    END;
END $$
"""

NAMES = (
    "idempotency_keys",
    "workers",
    "model_calls",
    "change_set_files",
    "change_sets",
    "approval_decisions",
    "approval_requests",
    "events",
    "step_needs",
    "steps",
    "runs",
    "workspaces",
)
FUNCTIONS = ("ensure_event_partitions(integer)", "first_id(timestamptz)", "refuse_change()")


def upgrade() -> None:
    for statement in (*TABLES, *JOURNAL, ROLE, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    for name in NAMES:
        op.execute(f"DROP TABLE stepgate.{name}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION stepgate.{function}")
    op.execute(REVOKES)
