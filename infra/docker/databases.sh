#!/bin/sh
# One role and one database for each service; no role sees the database of another.
# PostgreSQL's image runs this once, on an empty data folder.
set -eu

psql --set=ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
  --set=segvigen="$PIPELINE_DATABASE_PASSWORD" \
  --set=prefect="$PREFECT_DATABASE_PASSWORD" \
  --set=label_studio="$LABEL_STUDIO_DATABASE_PASSWORD" <<'SQL'
CREATE ROLE segvigen LOGIN PASSWORD :'segvigen';
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE ROLE label_studio LOGIN PASSWORD :'label_studio';
CREATE DATABASE segvigen OWNER segvigen;
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE label_studio OWNER label_studio;
REVOKE ALL ON DATABASE segvigen, prefect, label_studio, postgres FROM PUBLIC;
SQL
