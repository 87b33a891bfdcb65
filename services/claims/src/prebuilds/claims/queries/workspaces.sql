-- Read workspaces with their latest builds (b_), latest claims (c_) and agents, in no order.
SELECT
    w.id, w.organization_id, w.name, w.owner_id, owner.name AS owner_name, w.template_id, t.name AS template_name,
    CASE
        WHEN w.deleted THEN 'deleted'
        WHEN p.state = 'failed' AND b.outcome = 'succeeded' THEN 'dead'
        ELSE b.transition || ':' || coalesce(b.outcome, j.status)
    END AS standing,
    w.ttl, w.deadline, w.autostart, w.dormant_at, w.deleting_at, w.last_used_at, w.claim_generation,
    w.handover_generation, w.created_at, w.claimed_at, w.deleted_at,
    p.workspace_id IS NOT NULL AS is_prebuild,
    coalesce(
        prebuild_is_eligible(
            p, preset, t, statement_timestamp(),
            ARRAY(SELECT id FROM gateways WHERE seen_at > now() - interval '60 s')
        ),
        false
    ) AS eligible,
    p.ready_at, p.expires_at, p.delete_marked_at, p.disconnected_at,
    (
        SELECT coalesce(jsonb_agg(to_jsonb(a) ORDER BY a.name), '[]')
        FROM agents AS a
        WHERE a.workspace_id = w.id AND NOT a.retired
    ) AS agents,
    b.id AS b_id, b.organization_id AS b_organization_id, b.workspace_id AS b_workspace_id,
    b.workspace_name AS b_workspace_name, b.number AS b_number, b.transition AS b_transition, b.reason AS b_reason,
    coalesce(b.outcome, j.status) AS b_status, b.version_id AS b_version_id, version.name AS b_version_name,
    b.preset_id AS b_preset_id, preset.name AS b_preset_name, b.parameters AS b_parameters,
    b.generation AS b_generation, b.owner_id AS b_owner_id, b.owner_name AS b_owner_name,
    b.initiator_id AS b_initiator_id, initiator.name AS b_initiator_name, j.id AS b_job_id,
    b.failure_class AS b_failure_class, b.error AS b_error, b.daily_cost AS b_daily_cost,
    b.created_at AS b_created_at, j.started_at AS b_started_at, b.finished_at AS b_finished_at,
    c.id AS c_id, c.organization_id AS c_organization_id, c.workspace_id AS c_workspace_id,
    claim_build.workspace_name AS c_workspace_name, c.user_id AS c_owner_id, claim_build.owner_name AS c_owner_name,
    c.preset_id AS c_preset_id, claim_preset.name AS c_preset_name, w.template_id AS c_template_id,
    t.name AS c_template_name, c.build_id AS c_build_id, c.generation AS c_generation, c.state AS c_state,
    c.outcome AS c_outcome, c.reason AS c_reason,
    c.state = 'handing_over' AND c.handed_over_at < now() - interval '60 s' AS c_overdue,
    c.requested_at AS c_requested_at, c.committed_at AS c_committed_at, c.handed_over_at AS c_handed_over_at,
    c.acknowledged_at AS c_acknowledged_at, c.ended_at AS c_ended_at
FROM workspaces AS w
JOIN users AS owner ON owner.id = w.owner_id
JOIN templates AS t ON t.id = w.template_id
JOIN builds AS b ON b.id = w.latest_build_id
JOIN template_versions AS version ON version.id = b.version_id
JOIN users AS initiator ON initiator.id = b.initiator_id
LEFT JOIN jobs AS j ON j.build_id = b.id
LEFT JOIN prebuilds AS p ON p.workspace_id = w.id
LEFT JOIN presets AS preset ON preset.id = b.preset_id
LEFT JOIN claims AS c ON c.workspace_id = w.id AND c.generation = w.claim_generation
LEFT JOIN builds AS claim_build ON claim_build.id = c.build_id
LEFT JOIN presets AS claim_preset ON claim_preset.id = c.preset_id
WHERE w.id = ANY(%(workspace_ids)s)
