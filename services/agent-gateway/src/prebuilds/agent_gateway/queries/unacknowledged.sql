-- Count the handovers that have been due for more than a minute without an acknowledgement, by pool.
SELECT o.name AS organization, t.name AS template, p.name AS preset, count(*) AS handovers
FROM claims AS c
JOIN presets AS p ON p.id = c.preset_id
JOIN templates AS t ON t.id = p.template_id
JOIN organizations AS o ON o.id = c.organization_id
WHERE c.state = 'handing_over' AND c.handed_over_at < now() - interval '60 s'
GROUP BY o.name, t.name, p.name
