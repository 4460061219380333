"""Label Studio: client, project, label config, push, pull, annotations."""
