-- Written by scripts/migration.py from the models of prebuilds.store.schema.

CREATE TABLE gateways (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    address TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    live_since TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_gateways PRIMARY KEY (id)
);

CREATE TABLE organizations (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT DEFAULT '' NOT NULL,
    deleted BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_organizations PRIMARY KEY (id)
);

CREATE UNIQUE INDEX uq_organizations_name_live ON organizations (name) WHERE NOT deleted;

CREATE TABLE users (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    is_system BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    last_seen_at TIMESTAMP WITH TIME ZONE DEFAULT now(),
    deleted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_users PRIMARY KEY (id),
    CONSTRAINT uq_users_issuer_subject UNIQUE (issuer, subject)
);

CREATE TABLE outbox (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    event VARCHAR(32) NOT NULL,
    subject_id UUID NOT NULL,
    organization_id UUID,
    payload JSONB NOT NULL,
    traceparent TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    leased_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_outbox PRIMARY KEY (id),
    CONSTRAINT ck_outbox_eventkind CHECK (event IN ('claimed', 'handover_due', 'handover_ended', 'agent_revoked', 'agent_ready', 'acknowledged', 'build_changed', 'job_queued', 'template_changed', 'settings_changed', 'notification'))
);

CREATE INDEX ix_outbox_age ON outbox (created_at);

CREATE TABLE organization_members (
    organization_id UUID NOT NULL,
    user_id UUID NOT NULL,
    roles TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_organization_members PRIMARY KEY (organization_id, user_id),
    CONSTRAINT fk_organization_members_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_organization_members_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_organization_members_user_id ON organization_members (user_id);

CREATE TABLE groups (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    name TEXT NOT NULL,
    quota_allowance BIGINT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_groups PRIMARY KEY (id),
    CONSTRAINT uq_groups_organization_id_name UNIQUE (organization_id, name),
    CONSTRAINT ck_groups_allowance_not_negative CHECK (quota_allowance >= 0),
    CONSTRAINT fk_groups_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id)
);

CREATE TABLE provisioner_keys (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID,
    name TEXT NOT NULL,
    secret_sha256 BYTEA NOT NULL,
    tags JSONB DEFAULT '{}' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_provisioner_keys PRIMARY KEY (id),
    CONSTRAINT uq_provisioner_keys_organization_id_name UNIQUE NULLS NOT DISTINCT (organization_id, name),
    CONSTRAINT ck_provisioner_keys_secret_is_a_digest CHECK (octet_length(secret_sha256) = 32),
    CONSTRAINT fk_provisioner_keys_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id)
);

CREATE TABLE quota_usage (
    organization_id UUID NOT NULL,
    user_id UUID NOT NULL,
    used BIGINT NOT NULL,
    CONSTRAINT pk_quota_usage PRIMARY KEY (organization_id, user_id),
    CONSTRAINT ck_quota_usage_used_not_negative CHECK (used >= 0),
    CONSTRAINT fk_quota_usage_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_quota_usage_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE TABLE requests (
    organization_id UUID NOT NULL,
    principal TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    answer JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_requests PRIMARY KEY (organization_id, principal, method, request_id),
    CONSTRAINT fk_requests_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id)
);

CREATE INDEX ix_requests_age ON requests (created_at);

CREATE TABLE notifications (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    role TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject_id UUID NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_notifications PRIMARY KEY (id),
    CONSTRAINT fk_notifications_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id)
);

CREATE INDEX ix_notifications_organization ON notifications (organization_id, created_at DESC);

CREATE TABLE audit_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    organization_id UUID,
    principal TEXT NOT NULL,
    principal_name TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    resource_id UUID NOT NULL,
    resource_name TEXT NOT NULL,
    details JSONB DEFAULT '{}' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_audit_log PRIMARY KEY (id),
    CONSTRAINT fk_audit_log_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id)
);

CREATE INDEX ix_audit_log_organization ON audit_log (organization_id, created_at DESC, id DESC);

CREATE INDEX ix_audit_log_resource ON audit_log (resource_id, created_at DESC, id DESC);

CREATE INDEX ix_audit_log_time ON audit_log (created_at DESC, id DESC);

CREATE TABLE settings (
    key TEXT NOT NULL,
    value JSONB NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_by UUID,
    CONSTRAINT pk_settings PRIMARY KEY (key),
    CONSTRAINT fk_settings_updated_by FOREIGN KEY(updated_by) REFERENCES users (id)
);

CREATE TABLE templates (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT DEFAULT '' NOT NULL,
    description TEXT DEFAULT '' NOT NULL,
    active_version_id UUID,
    deprecated TEXT DEFAULT '' NOT NULL,
    deleted BOOLEAN DEFAULT false NOT NULL,
    default_ttl INTERVAL,
    autostart TEXT DEFAULT '' NOT NULL,
    time_til_dormant INTERVAL,
    time_til_dormant_autodelete INTERVAL,
    claim_strategy VARCHAR(32) DEFAULT 'provision' NOT NULL,
    max_starting INTEGER,
    paused_at TIMESTAMP WITH TIME ZONE,
    paused_by UUID,
    pause_message TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_templates PRIMARY KEY (id),
    CONSTRAINT ck_templates_max_starting_positive CHECK (max_starting > 0),
    CONSTRAINT fk_templates_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT ck_templates_claimstrategy CHECK (claim_strategy IN ('provision', 'instant')),
    CONSTRAINT fk_templates_paused_by FOREIGN KEY(paused_by) REFERENCES users (id)
);

CREATE UNIQUE INDEX uq_templates_name_live ON templates (organization_id, name) WHERE NOT deleted;

CREATE TABLE group_members (
    group_id UUID NOT NULL,
    user_id UUID NOT NULL,
    CONSTRAINT pk_group_members PRIMARY KEY (group_id, user_id),
    CONSTRAINT fk_group_members_group_id FOREIGN KEY(group_id) REFERENCES groups (id),
    CONSTRAINT fk_group_members_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_group_members_user_id ON group_members (user_id);

CREATE TABLE pool_events (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    organization_id UUID NOT NULL,
    template_id UUID NOT NULL,
    preset_name TEXT NOT NULL,
    kind VARCHAR(32) NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    failure_class VARCHAR(32),
    workspace_id UUID,
    user_id UUID,
    is_counted BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_pool_events PRIMARY KEY (id),
    CONSTRAINT fk_pool_events_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_pool_events_template_id FOREIGN KEY(template_id) REFERENCES templates (id),
    CONSTRAINT ck_pool_events_pooleventkind CHECK (kind IN ('created', 'failed', 'claimed', 'missed', 'expired', 'deleted', 'canceled', 'resources_replaced')),
    CONSTRAINT ck_pool_events_failureclass CHECK (failure_class IN ('template', 'infrastructure'))
);

CREATE INDEX ix_pool_events_preset ON pool_events (template_id, preset_name, kind, created_at);

CREATE INDEX ix_pool_events_uncounted ON pool_events (id) WHERE NOT is_counted;

CREATE TABLE pool_event_totals (
    template_id UUID NOT NULL,
    preset_name TEXT NOT NULL,
    kind VARCHAR(32) NOT NULL,
    label TEXT NOT NULL,
    organization_id UUID NOT NULL,
    total BIGINT NOT NULL,
    CONSTRAINT pk_pool_event_totals PRIMARY KEY (template_id, preset_name, kind, label),
    CONSTRAINT fk_pool_event_totals_template_id FOREIGN KEY(template_id) REFERENCES templates (id),
    CONSTRAINT ck_pool_event_totals_pooleventkind CHECK (kind IN ('created', 'failed', 'claimed', 'missed', 'expired', 'deleted', 'canceled', 'resources_replaced')),
    CONSTRAINT fk_pool_event_totals_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id)
);

CREATE TABLE notification_reads (
    notification_id UUID NOT NULL,
    user_id UUID NOT NULL,
    read_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_notification_reads PRIMARY KEY (notification_id, user_id),
    CONSTRAINT fk_notification_reads_notification_id FOREIGN KEY(notification_id) REFERENCES notifications (id),
    CONSTRAINT fk_notification_reads_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE TABLE template_versions (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    template_id UUID NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    backend VARCHAR(32) NOT NULL,
    agents TEXT[] NOT NULL,
    manifest JSONB NOT NULL,
    source_archive BYTEA NOT NULL,
    archive_size INTEGER GENERATED ALWAYS AS (octet_length(source_archive)) STORED NOT NULL,
    archive_sha256 TEXT GENERATED ALWAYS AS (encode(sha256(source_archive), 'hex')) STORED NOT NULL,
    created_by UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_template_versions PRIMARY KEY (id),
    CONSTRAINT uq_template_versions_template_id_number UNIQUE (template_id, number),
    CONSTRAINT uq_template_versions_template_id_name UNIQUE (template_id, name),
    CONSTRAINT fk_template_versions_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_template_versions_template_id FOREIGN KEY(template_id) REFERENCES templates (id),
    CONSTRAINT ck_template_versions_backendkind CHECK (backend IN ('process', 'terraform')),
    CONSTRAINT fk_template_versions_created_by FOREIGN KEY(created_by) REFERENCES users (id)
);

CREATE TABLE workspaces (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    owner_id UUID NOT NULL,
    name TEXT NOT NULL,
    template_id UUID NOT NULL,
    claim_generation INTEGER DEFAULT 0 NOT NULL,
    handover_generation INTEGER DEFAULT 0 NOT NULL,
    latest_build_id UUID,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    claimed_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    ttl INTERVAL,
    deadline TIMESTAMP WITH TIME ZONE,
    autostart TEXT DEFAULT '' NOT NULL,
    dormant_at TIMESTAMP WITH TIME ZONE,
    deleting_at TIMESTAMP WITH TIME ZONE,
    deleted BOOLEAN DEFAULT false NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_workspaces PRIMARY KEY (id),
    CONSTRAINT ck_workspaces_handover_not_negative CHECK (0 <= handover_generation),
    CONSTRAINT ck_workspaces_handover_follows_claim CHECK (handover_generation <= claim_generation),
    CONSTRAINT fk_workspaces_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_workspaces_owner_id FOREIGN KEY(owner_id) REFERENCES users (id),
    CONSTRAINT fk_workspaces_template_id FOREIGN KEY(template_id) REFERENCES templates (id)
);

CREATE INDEX ix_workspaces_organization_live ON workspaces (organization_id, id) WHERE NOT deleted;

CREATE UNIQUE INDEX uq_workspaces_name_live ON workspaces (owner_id, name) WHERE NOT deleted;

CREATE TABLE agents (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    workspace_id UUID NOT NULL,
    name TEXT NOT NULL,
    token_key_id TEXT,
    token_epoch INTEGER DEFAULT 1 NOT NULL,
    retired BOOLEAN DEFAULT false NOT NULL,
    incarnation INTEGER DEFAULT 0 NOT NULL,
    process TEXT DEFAULT '' NOT NULL,
    entry INTEGER DEFAULT 0 NOT NULL,
    generation INTEGER DEFAULT 0 NOT NULL,
    state VARCHAR(32) DEFAULT 'created' NOT NULL,
    state_changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    error TEXT DEFAULT '' NOT NULL,
    gateway_id UUID,
    connection_id UUID,
    attempt INTEGER DEFAULT 0 NOT NULL,
    connected_at TIMESTAMP WITH TIME ZONE,
    disconnected_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_agents PRIMARY KEY (id),
    CONSTRAINT uq_agents_workspace_id_name UNIQUE (workspace_id, name),
    CONSTRAINT fk_agents_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_agents_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (id),
    CONSTRAINT ck_agents_agentstate CHECK (state IN ('created', 'starting', 'ready', 'start_error', 'start_timeout', 'shutting_down', 'off'))
);

CREATE INDEX ix_agents_gateway ON agents (gateway_id) WHERE gateway_id IS NOT NULL;

CREATE TABLE prebuilds (
    workspace_id UUID NOT NULL,
    organization_id UUID NOT NULL,
    template_id UUID NOT NULL,
    version_id UUID NOT NULL,
    preset_id UUID NOT NULL,
    state VARCHAR(32) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ready_at TIMESTAMP WITH TIME ZONE,
    expires_at TIMESTAMP WITH TIME ZONE,
    delete_marked_at TIMESTAMP WITH TIME ZONE,
    daily_cost INTEGER DEFAULT 0 NOT NULL,
    gateways UUID[],
    disconnected_at TIMESTAMP WITH TIME ZONE,
    failure_class VARCHAR(32),
    CONSTRAINT pk_prebuilds PRIMARY KEY (workspace_id),
    CONSTRAINT fk_prebuilds_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (id),
    CONSTRAINT ck_prebuilds_prebuildstate CHECK (state IN ('starting', 'running', 'stopping', 'stopped', 'deleting', 'failed', 'canceled')),
    CONSTRAINT ck_prebuilds_failureclass CHECK (failure_class IN ('template', 'infrastructure'))
)
 WITH (fillfactor = 70);

CREATE INDEX ix_prebuilds_claimable ON prebuilds (preset_id, expires_at, ready_at) WHERE state = 'running' AND ready_at IS NOT NULL AND delete_marked_at IS NULL AND gateways IS NOT NULL;

CREATE INDEX ix_prebuilds_ended ON prebuilds (preset_id) WHERE state IN ('failed', 'canceled');

CREATE INDEX ix_prebuilds_marked ON prebuilds (preset_id) WHERE delete_marked_at IS NOT NULL AND state IN ('running', 'stopped');

CREATE INDEX ix_prebuilds_preset ON prebuilds (preset_id);

CREATE TABLE template_parameters (
    version_id UUID NOT NULL,
    name TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    type TEXT NOT NULL,
    description TEXT DEFAULT '' NOT NULL,
    default_value TEXT,
    mutable BOOLEAN NOT NULL,
    options TEXT[] NOT NULL,
    CONSTRAINT pk_template_parameters PRIMARY KEY (version_id, name),
    CONSTRAINT fk_template_parameters_version_id FOREIGN KEY(version_id) REFERENCES template_versions (id)
);

CREATE TABLE presets (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    template_id UUID NOT NULL,
    version_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT DEFAULT '' NOT NULL,
    is_default BOOLEAN NOT NULL,
    desired_instances INTEGER,
    ttl INTERVAL,
    timezone TEXT DEFAULT '' NOT NULL,
    status VARCHAR(32) DEFAULT 'healthy' NOT NULL,
    status_since TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    status_message TEXT DEFAULT '' NOT NULL,
    last_invalidated_at TIMESTAMP WITH TIME ZONE,
    retry_requested_at TIMESTAMP WITH TIME ZONE,
    over_quota_since TIMESTAMP WITH TIME ZONE,
    reconciled_at TIMESTAMP WITH TIME ZONE,
    paused_at TIMESTAMP WITH TIME ZONE,
    paused_by UUID,
    pause_message TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_presets PRIMARY KEY (id),
    CONSTRAINT uq_presets_version_id_name UNIQUE (version_id, name),
    CONSTRAINT ck_presets_instances_not_negative CHECK (desired_instances >= 0),
    CONSTRAINT ck_presets_ttl_positive CHECK (ttl > interval '0'),
    CONSTRAINT fk_presets_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_presets_template_id FOREIGN KEY(template_id) REFERENCES templates (id),
    CONSTRAINT fk_presets_version_id FOREIGN KEY(version_id) REFERENCES template_versions (id),
    CONSTRAINT ck_presets_presetstatus CHECK (status IN ('healthy', 'hard_limited', 'validation_failed')),
    CONSTRAINT fk_presets_paused_by FOREIGN KEY(paused_by) REFERENCES users (id)
);

CREATE INDEX ix_presets_over_quota ON presets (organization_id) WHERE over_quota_since IS NOT NULL;

CREATE INDEX ix_presets_pools ON presets (template_id) WHERE desired_instances IS NOT NULL;

CREATE UNIQUE INDEX uq_presets_default ON presets (version_id) WHERE is_default;

CREATE TABLE waiting (
    place BIGINT GENERATED ALWAYS AS IDENTITY,
    organization_id UUID NOT NULL,
    preset_id UUID NOT NULL,
    user_id UUID NOT NULL,
    request_id TEXT NOT NULL,
    joined_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    lease_expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_waiting PRIMARY KEY (place),
    CONSTRAINT fk_waiting_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_waiting_preset_id FOREIGN KEY(preset_id) REFERENCES presets (id),
    CONSTRAINT fk_waiting_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_waiting_line ON waiting (preset_id, place);

CREATE TABLE preset_parameters (
    preset_id UUID NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    CONSTRAINT pk_preset_parameters PRIMARY KEY (preset_id, name),
    CONSTRAINT fk_preset_parameters_preset_id FOREIGN KEY(preset_id) REFERENCES presets (id)
);

CREATE TABLE preset_schedules (
    preset_id UUID NOT NULL,
    ordinal INTEGER NOT NULL,
    cron TEXT NOT NULL,
    instances INTEGER NOT NULL,
    CONSTRAINT pk_preset_schedules PRIMARY KEY (preset_id, ordinal),
    CONSTRAINT ck_preset_schedules_instances_not_negative CHECK (instances >= 0),
    CONSTRAINT fk_preset_schedules_preset_id FOREIGN KEY(preset_id) REFERENCES presets (id)
);

CREATE TABLE builds (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    workspace_id UUID NOT NULL,
    number INTEGER NOT NULL,
    version_id UUID NOT NULL,
    preset_id UUID,
    transition VARCHAR(32) NOT NULL,
    reason VARCHAR(32) NOT NULL,
    generation INTEGER NOT NULL,
    owner_id UUID NOT NULL,
    owner_name TEXT NOT NULL,
    workspace_name TEXT NOT NULL,
    initiator_id UUID NOT NULL,
    parameters JSONB NOT NULL,
    outcome VARCHAR(32),
    failure_class VARCHAR(32),
    error TEXT DEFAULT '' NOT NULL,
    provisioner_state BYTEA,
    host TEXT,
    daily_cost INTEGER DEFAULT 0 NOT NULL,
    report JSONB DEFAULT '{}' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_builds PRIMARY KEY (id),
    CONSTRAINT uq_builds_workspace_id_number UNIQUE (workspace_id, number),
    CONSTRAINT fk_builds_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_builds_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (id),
    CONSTRAINT fk_builds_version_id FOREIGN KEY(version_id) REFERENCES template_versions (id),
    CONSTRAINT fk_builds_preset_id FOREIGN KEY(preset_id) REFERENCES presets (id),
    CONSTRAINT ck_builds_transition CHECK (transition IN ('start', 'stop', 'delete')),
    CONSTRAINT ck_builds_buildreason CHECK (reason IN ('prebuild', 'claim', 'user', 'autostart', 'autostop', 'dormancy', 'autodelete', 'retention')),
    CONSTRAINT fk_builds_owner_id FOREIGN KEY(owner_id) REFERENCES users (id),
    CONSTRAINT fk_builds_initiator_id FOREIGN KEY(initiator_id) REFERENCES users (id),
    CONSTRAINT ck_builds_buildoutcome CHECK (outcome IN ('succeeded', 'failed', 'canceled')),
    CONSTRAINT ck_builds_failureclass CHECK (failure_class IN ('template', 'infrastructure'))
);

CREATE INDEX ix_builds_failed_starts ON builds (preset_id) WHERE transition = 'start' AND initiator_id = '00000000-0000-7000-8000-000000000001'::uuid AND outcome = 'failed';

CREATE INDEX ix_builds_manifest ON builds (workspace_id, number DESC) INCLUDE (generation) WHERE transition = 'start';

CREATE INDEX ix_builds_pool_history ON builds (preset_id, created_at DESC) INCLUDE (outcome, failure_class) WHERE transition = 'start' AND initiator_id = '00000000-0000-7000-8000-000000000001'::uuid;

CREATE UNIQUE INDEX uq_builds_unfinished ON builds (workspace_id) WHERE outcome IS NULL;

CREATE TABLE jobs (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    workspace_id UUID NOT NULL,
    build_id UUID NOT NULL,
    backend VARCHAR(32) NOT NULL,
    tags JSONB DEFAULT '{}' NOT NULL,
    priority INTEGER NOT NULL,
    status VARCHAR(32) DEFAULT 'pending' NOT NULL,
    attempt INTEGER DEFAULT 0 NOT NULL,
    lease_id UUID,
    lease_owner TEXT DEFAULT '' NOT NULL,
    lease_expires_at TIMESTAMP WITH TIME ZONE,
    cancel_requested_at TIMESTAMP WITH TIME ZONE,
    error TEXT DEFAULT '' NOT NULL,
    traceparent TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT ck_jobs_attempt_not_negative CHECK (attempt >= 0),
    CONSTRAINT ck_jobs_leased_while_running CHECK (status NOT IN ('running', 'canceling') OR lease_id IS NOT NULL),
    CONSTRAINT ck_jobs_no_lease_while_pending CHECK (status <> 'pending' OR lease_id IS NULL),
    CONSTRAINT fk_jobs_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_jobs_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (id),
    CONSTRAINT uq_jobs_build_id UNIQUE (build_id),
    CONSTRAINT fk_jobs_build_id FOREIGN KEY(build_id) REFERENCES builds (id),
    CONSTRAINT ck_jobs_backendkind CHECK (backend IN ('process', 'terraform')),
    CONSTRAINT ck_jobs_jobstatus CHECK (status IN ('pending', 'running', 'canceling', 'succeeded', 'failed', 'canceled'))
);

CREATE INDEX ix_jobs_leases ON jobs (lease_expires_at) WHERE status IN ('running', 'canceling');

CREATE INDEX ix_jobs_organization ON jobs (organization_id, created_at DESC);

CREATE INDEX ix_jobs_queue ON jobs (priority, created_at, id) WHERE status = 'pending';

CREATE TABLE claims (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    organization_id UUID NOT NULL,
    workspace_id UUID NOT NULL,
    user_id UUID NOT NULL,
    preset_id UUID NOT NULL,
    build_id UUID NOT NULL,
    generation INTEGER NOT NULL,
    state VARCHAR(32) NOT NULL,
    outcome VARCHAR(32),
    reason TEXT DEFAULT '' NOT NULL,
    requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
    committed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    handed_over_at TIMESTAMP WITH TIME ZONE,
    acknowledged_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_claims PRIMARY KEY (id),
    CONSTRAINT uq_claims_workspace_id_generation UNIQUE (workspace_id, generation),
    CONSTRAINT fk_claims_organization_id FOREIGN KEY(organization_id) REFERENCES organizations (id),
    CONSTRAINT fk_claims_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (id),
    CONSTRAINT fk_claims_user_id FOREIGN KEY(user_id) REFERENCES users (id),
    CONSTRAINT fk_claims_preset_id FOREIGN KEY(preset_id) REFERENCES presets (id),
    CONSTRAINT fk_claims_build_id FOREIGN KEY(build_id) REFERENCES builds (id),
    CONSTRAINT ck_claims_claimstate CHECK (state IN ('building', 'handing_over', 'acknowledged', 'failed', 'superseded')),
    CONSTRAINT ck_claims_agentstate CHECK (outcome IN ('created', 'starting', 'ready', 'start_error', 'start_timeout', 'shutting_down', 'off'))
);

CREATE INDEX ix_claims_organization ON claims (organization_id, committed_at DESC);

CREATE UNIQUE INDEX ix_claims_open ON claims (workspace_id) WHERE state IN ('building', 'handing_over');

CREATE TABLE job_logs (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    job_id UUID NOT NULL,
    attempt INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    logged_at TIMESTAMP WITH TIME ZONE NOT NULL,
    level VARCHAR(32) NOT NULL,
    stage TEXT NOT NULL,
    line TEXT NOT NULL,
    CONSTRAINT pk_job_logs PRIMARY KEY (id),
    CONSTRAINT uq_job_logs_job_id_attempt_sequence UNIQUE (job_id, attempt, sequence),
    CONSTRAINT fk_job_logs_job_id FOREIGN KEY(job_id) REFERENCES jobs (id),
    CONSTRAINT ck_job_logs_loglevel CHECK (level IN ('debug', 'info', 'warn', 'error'))
);

ALTER TABLE templates ADD CONSTRAINT fk_templates_active_version_id FOREIGN KEY(active_version_id) REFERENCES template_versions (id);

ALTER TABLE workspaces ADD CONSTRAINT fk_workspaces_latest_build_id FOREIGN KEY(latest_build_id) REFERENCES builds (id);

CREATE INDEX ix_job_logs_job ON job_logs (job_id, id);

CREATE FUNCTION prebuild_is_eligible(
    prebuild prebuilds, preset presets, template templates, at timestamptz, live_gateways uuid[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT prebuild.state = 'running'
        AND prebuild.ready_at IS NOT NULL
        AND prebuild.delete_marked_at IS NULL
        AND prebuild.gateways IS NOT NULL
        AND coalesce(prebuild.gateways <@ live_gateways, false)
        AND (prebuild.expires_at IS NULL OR at <= prebuild.expires_at)
        AND (preset.last_invalidated_at IS NULL OR prebuild.created_at >= preset.last_invalidated_at)
        AND template.active_version_id = prebuild.version_id
        AND NOT template.deleted
        AND template.deprecated = ''
$$;

INSERT INTO users (id, issuer, subject, name, is_system)
VALUES ('00000000-0000-7000-8000-000000000001', 'prebuilds', 'system', 'prebuilds', true);
