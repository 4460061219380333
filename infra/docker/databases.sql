-- PostgreSQL makes the first database from its settings; these are Prefect's and Label Studio's.
CREATE DATABASE prefect;
CREATE DATABASE label_studio;
