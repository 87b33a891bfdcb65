-- Write down what the people of a role are told.
INSERT INTO notifications (id, organization_id, role, kind, subject_id, title, body)
VALUES (%(id)s, %(organization_id)s, %(role)s, %(kind)s, %(subject_id)s, %(title)s, %(body)s)
