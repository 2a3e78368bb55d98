# Measuring, without a database: rounds on scratch servers, and what they were measured on.
