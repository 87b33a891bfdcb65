-- Tell whether a job is one of this organisation's, or of any where none is named.
SELECT EXISTS (
    SELECT FROM jobs
    WHERE id = %(job_id)s AND (%(organization_id)s::uuid IS NULL OR organization_id = %(organization_id)s)
)
