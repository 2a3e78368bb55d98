# The load generator: schedules, senders, records and statistics; it stands alone.
