-- A ledger as the first schema had it, with one job. What SQLite's `.dump` leaves out is at the end.
BEGIN TRANSACTION;
CREATE TABLE api_versions (
    name        TEXT NOT NULL,
    api_id      TEXT NOT NULL,
    endpoint    TEXT NOT NULL,
    spec_json   TEXT NOT NULL,
    deployed_ns INTEGER NOT NULL,
    PRIMARY KEY (name, api_id)
);
INSERT INTO "api_versions" VALUES('digits','1','/digits','{}',1);
CREATE TABLE apis (
    name   TEXT PRIMARY KEY,
    api_id TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "apis" VALUES('digits','1');
CREATE TABLE histories (
    job      INTEGER NOT NULL,
    batch    INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    losses   INTEGER NOT NULL,
    PRIMARY KEY (job, batch)
) WITHOUT ROWID;
CREATE TABLE input (
    job   INTEGER NOT NULL,
    start INTEGER NOT NULL,  -- offset in the stream
    bytes BLOB NOT NULL,
    PRIMARY KEY (job, start)
);
INSERT INTO "input" VALUES(1,0,X'312C322C332C342C');
CREATE TABLE job_configs (
    job         INTEGER PRIMARY KEY,
    config_json TEXT NOT NULL
);
INSERT INTO "job_configs" VALUES(1,'{"a": 1.0}');
CREATE TABLE jobs (
    key                    INTEGER PRIMARY KEY,  -- stands for job_id in the tables below, in a byte or two
    job_id                 TEXT NOT NULL UNIQUE,
    -- the specification, which never changes
    api_name               TEXT NOT NULL,
    api_id                 TEXT NOT NULL,
    workers                INTEGER NOT NULL,
    batch_size             INTEGER NOT NULL,
    timeout_seconds        INTEGER,
    batch_timeout_seconds  INTEGER,
    dead_letter_arn        TEXT,                 -- NULL: no dead letter queue
    max_receive_count      INTEGER,
    created_ns             INTEGER NOT NULL,
    traceparent            TEXT NOT NULL,
    -- the state
    status                 TEXT NOT NULL,
    final                  INTEGER NOT NULL,     -- 1 when the status is
    reason                 TEXT NOT NULL,
    total_batches          INTEGER,
    completion_http_status INTEGER,              -- NULL: /on-job-complete is not answered
    completion_error       TEXT,
    ended_ns               INTEGER,
    -- the tally
    batches_succeeded      INTEGER NOT NULL,
    batches_failed         INTEGER NOT NULL,
    attempts_succeeded     INTEGER NOT NULL,
    attempts_failed        INTEGER NOT NULL,
    succeeded_seconds      REAL NOT NULL,
    buckets                TEXT NOT NULL,        -- JSON array of counts
    -- the cursor, and the low-water mark
    next_index             INTEGER NOT NULL,
    input_offset           INTEGER NOT NULL,
    input_done             INTEGER NOT NULL,
    low_water              INTEGER NOT NULL
);
INSERT INTO "jobs" VALUES(1,'6000000000000000','digits','1',2,3,60,NULL,NULL,NULL,1790000000000000000,'00-ab-cd-01','completed_with_failures',1,'1 batch failed',2,200,'',9,1,1,1,1,0.5,'[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]',2,8,1,2);
CREATE TABLE ledger (
    generation INTEGER NOT NULL,  -- how often a scheduler has opened it
    secret     BLOB NOT NULL      -- signs worker tokens
);
INSERT INTO "ledger" VALUES(1,zeroblob(32));
CREATE TABLE outcomes (
    job         INTEGER NOT NULL,
    batch       INTEGER NOT NULL,
    succeeded   INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    http_status INTEGER NOT NULL,
    error       TEXT NOT NULL,
    ended_ns    INTEGER NOT NULL,
    PRIMARY KEY (job, batch)
) WITHOUT ROWID;
INSERT INTO "outcomes" VALUES(1,0,1,1,200,'',5);
INSERT INTO "outcomes" VALUES(1,1,0,1,500,'no',6);
CREATE TABLE requests (
    api_name   TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest     BLOB NOT NULL,
    job_id     TEXT NOT NULL,
    PRIMARY KEY (api_name, request_id)
) WITHOUT ROWID;
CREATE TABLE segments (
    job         INTEGER NOT NULL,
    first_index INTEGER NOT NULL,
    start       INTEGER NOT NULL,
    lengths     BLOB NOT NULL,  -- of each batch, unsigned 32-bit, little endian
    PRIMARY KEY (job, first_index)
);
INSERT INTO "segments" VALUES(1,0,0,X'0600000002000000');
CREATE TABLE workers (
    worker_id TEXT PRIMARY KEY,
    job_id    TEXT NOT NULL,
    slot      INTEGER NOT NULL,
    pid       INTEGER,
    started   REAL,
    detail    TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX jobs_of_api ON jobs (api_name, job_id);
CREATE INDEX jobs_running ON jobs (job_id) WHERE final = 0;
CREATE INDEX outcomes_failed ON outcomes (job, batch) WHERE succeeded = 0;
COMMIT;
PRAGMA user_version = 1;
PRAGMA application_id = 1128418353;
