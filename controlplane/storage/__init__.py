# The only floor that knows SQL: one Store per room, the unit of work, the artifact store.
