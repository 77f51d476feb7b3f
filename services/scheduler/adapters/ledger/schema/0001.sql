-- The ledger's tables. Times are nanoseconds since 1970. Written in SQLite's words; see `migrations.py`.

-- One row: what the ledger knows of itself.
CREATE TABLE ledger (
    version            INTEGER NOT NULL,  -- of these tables: how many of the files beside this one they have been through
    generation         INTEGER NOT NULL,  -- how often a scheduler has opened it
    transaction_number INTEGER NOT NULL,  -- of the last write, where its answer may be lost: see `postgresql/`
    secret             BLOB NOT NULL      -- signs worker tokens
);

CREATE TABLE api_versions (
    name        TEXT NOT NULL,
    api_id      TEXT NOT NULL,
    endpoint    TEXT NOT NULL,
    spec_json   TEXT NOT NULL,
    deployed_ns INTEGER NOT NULL,
    PRIMARY KEY (name, api_id)
);

-- The versions in force.
CREATE TABLE apis (
    name   TEXT PRIMARY KEY,
    api_id TEXT NOT NULL
) WITHOUT ROWID;

-- Rows change with every record of outcomes, so they are kept short: see submissions.
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
    completion_http_status INTEGER,              -- NULL: /on-job-complete is not answered
    completion_error       TEXT,
    ended_ns               INTEGER,
    -- the tally
    batches_succeeded      INTEGER NOT NULL,
    batches_failed         INTEGER NOT NULL,
    batches_split          INTEGER NOT NULL,
    attempts_succeeded     INTEGER NOT NULL,
    attempts_failed        INTEGER NOT NULL,
    succeeded_seconds      REAL NOT NULL,
    buckets                TEXT NOT NULL,        -- JSON array of counts
    -- the cursor, and the low-water mark
    next_index             INTEGER NOT NULL,
    input_offset           INTEGER NOT NULL,
    input_done             INTEGER NOT NULL,
    input_position         TEXT NOT NULL,        -- where its source was read to
    low_water              INTEGER NOT NULL,
    -- jobs by their ids, '' for none: whose failed batches this one runs again, and which one runs this one's
    retry_of               TEXT NOT NULL DEFAULT '',
    retried_by             TEXT NOT NULL DEFAULT '',
    -- what was changed while it ran
    workers_now            INTEGER,              -- NULL: as it was submitted
    paused                 INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_of_api ON jobs (api_name, job_id);
CREATE INDEX jobs_running ON jobs (job_id) WHERE final = 0;

-- What else was submitted, apart because a `config` may be megabytes.
CREATE TABLE submissions (
    job          INTEGER NOT NULL PRIMARY KEY,
    config_json  TEXT NOT NULL,  -- '' when not given
    options_json TEXT NOT NULL,  -- retries, results, webhook, ...
    source_json  TEXT NOT NULL,  -- where the items come from; null: they came along
    webhook      INTEGER NOT NULL  -- 1: somebody is to be told of its end
);

-- Submissions and retries that may be sent again, and the job that each became.
CREATE TABLE requests (
    api_name   TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest     BLOB NOT NULL,  -- empty while a stream of items is not complete
    job_id     TEXT NOT NULL,
    PRIMARY KEY (api_name, request_id)
) WITHOUT ROWID;

-- The item streams, in pieces: either bytes, or a reference to a range of an object.
CREATE TABLE input (
    job          INTEGER NOT NULL,
    start        INTEGER NOT NULL,  -- offset in the stream
    bytes        BLOB,              -- NULL: a reference
    object       INTEGER,           -- its number
    object_start INTEGER,           -- where the range begins in the object
    length       INTEGER,           -- of the piece in the stream
    checksum     INTEGER,           -- its CRC-32
    PRIMARY KEY (job, start)
);

-- The objects that references are about, as they were when they were listed; by number in the order of the stream.
CREATE TABLE objects (
    job    INTEGER NOT NULL,
    number INTEGER NOT NULL,
    uri    TEXT NOT NULL,
    size   INTEGER NOT NULL,
    tag    TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

-- Copies of failed batches' items that are not stored above, as ranges of the item stream.
CREATE TABLE kept_items (
    job   INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (job, batch)
);

CREATE TABLE segments (
    job         INTEGER NOT NULL,
    first_index INTEGER NOT NULL,
    start       INTEGER NOT NULL,
    lengths     BLOB NOT NULL,  -- of each batch, unsigned 32-bit, little endian
    PRIMARY KEY (job, first_index)
);

-- Batches that are final. A batch without a row here is open.
CREATE TABLE outcomes (
    job         INTEGER NOT NULL,
    batch       INTEGER NOT NULL,
    state       INTEGER NOT NULL,  -- 0 failed, 1 succeeded, 2 split: its items are in two other batches
    attempts    INTEGER NOT NULL,
    http_status INTEGER NOT NULL,
    error       TEXT NOT NULL,
    ended_ns    INTEGER NOT NULL,
    PRIMARY KEY (job, batch)
) WITHOUT ROWID;

-- Finds failures among millions of successes.
CREATE INDEX outcomes_failed ON outcomes (job, batch) WHERE state = 0;

-- What containers answered to batches that succeeded, of jobs that keep it.
CREATE TABLE replies (
    job   INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (job, batch)
);

-- What open batches have been through.
CREATE TABLE histories (
    job         INTEGER NOT NULL,
    batch       INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    losses      INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,  -- of the lease that brought the last of these
    http_status INTEGER NOT NULL,  -- of the last attempt that failed, as is its error
    error       TEXT NOT NULL,
    given_up    INTEGER NOT NULL,  -- 1: it is delivered no more, and what becomes of it is not recorded yet
    PRIMARY KEY (job, batch)
) WITHOUT ROWID;

-- Jobs that are over and whose receivers are told of it.
CREATE TABLE webhooks (
    job          INTEGER NOT NULL PRIMARY KEY,
    attempts     INTEGER NOT NULL,
    due_ns       INTEGER,           -- NULL: no further attempt
    delivered_ns INTEGER,
    error        TEXT NOT NULL
);
CREATE INDEX webhooks_due ON webhooks (due_ns) WHERE due_ns IS NOT NULL;

CREATE TABLE workers (
    worker_id TEXT PRIMARY KEY,
    job_id    TEXT NOT NULL,
    slot      INTEGER NOT NULL,
    pid       INTEGER,
    started   REAL,
    detail    TEXT NOT NULL
) WITHOUT ROWID;
