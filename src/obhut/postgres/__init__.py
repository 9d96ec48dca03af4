"""All contact with PostgreSQL: connections, catalogue, clusters, control database.

The one package that imports a driver. Never lets a driver's error out: DETAIL, CONTEXT and even primary messages quote
values, so only SQLSTATE and the names of schema, table, column and constraint leave (see :mod:`obhut.postgres.errors`).
"""
