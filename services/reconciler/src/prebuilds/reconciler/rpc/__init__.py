"""The services of template admins and owners: requests into values, one call, answers."""
