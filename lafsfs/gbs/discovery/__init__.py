"""Finding storage servers: from NURLs, a Tahoe node's directory, and what introducers announce.

located         YAML with line numbers
furl            fURLs, of which the tub id is wanted
announcements   what a server says of itself        -> ServerRecord
grid_manager    who may receive uploads
cache           announcements in a file
static          servers.yaml
node_dir        a Tahoe client node's directory, read-only
sources         all that names servers, read together
roster          servers made of records, handed to the broker, kept in step
subscription    keeps the introducer's subscriber running
introducer/     that subscriber: a program of its own, the only user of Foolscap
"""
