-- Who there is, and what they owe. Only TEXT and BIGINT, so that SQLite and PostgreSQL take the same words.
-- Times are milliseconds since 1970. Money is two numbers: whole units, and 10^-12 units from 0 to 999999999999.

-- Counters that double as locks: whoever updates one first goes first.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO meta (name, value) VALUES ('revision', 1), ('invoices', 0);

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    source TEXT NOT NULL,
    plan TEXT,
    suspended BIGINT NOT NULL,
    terms TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX tenants_plan ON tenants (plan);

CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    terms TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT,
    replaces TEXT,
    used BIGINT
);
CREATE UNIQUE INDEX keys_hash ON keys (hash);
CREATE INDEX keys_tenant ON keys (tenant, created, id);

CREATE TABLE plans (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    terms TEXT NOT NULL,
    created BIGINT NOT NULL,
    retired BIGINT
);
CREATE UNIQUE INDEX plans_name ON plans (name, created);

CREATE TABLE subscriptions (
    tenant TEXT NOT NULL,
    plan TEXT NOT NULL,
    begins BIGINT NOT NULL,
    ends BIGINT,
    PRIMARY KEY (tenant, begins)
);

CREATE TABLE prices (
    id TEXT NOT NULL PRIMARY KEY,
    source TEXT NOT NULL,
    terms TEXT NOT NULL,
    created BIGINT NOT NULL,
    withdrawn BIGINT
);

CREATE TABLE charges (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    request TEXT NOT NULL,
    tenant TEXT NOT NULL,
    key TEXT,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    operation TEXT NOT NULL,
    tag TEXT,
    input BIGINT NOT NULL,
    cached BIGINT NOT NULL,
    cache_write BIGINT NOT NULL,
    audio_input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    reasoning BIGINT NOT NULL,
    audio_output BIGINT NOT NULL,
    images BIGINT NOT NULL,
    estimated BIGINT NOT NULL,
    gpu_millis BIGINT NOT NULL,
    ending TEXT NOT NULL,
    plan TEXT,
    price TEXT,
    currency TEXT NOT NULL,
    units BIGINT NOT NULL,
    pico BIGINT NOT NULL
);
CREATE INDEX charges_at ON charges (at, id);
CREATE INDEX charges_tenant ON charges (tenant, at, id);

-- Charges summed up by the hour. The id is a hash of what they are summed up by, some of which may be NULL.
CREATE TABLE sums (
    id TEXT NOT NULL PRIMARY KEY,
    hour BIGINT NOT NULL,
    tenant TEXT NOT NULL,
    key TEXT,
    model TEXT NOT NULL,
    tag TEXT,
    price TEXT,
    plan TEXT,
    currency TEXT NOT NULL,
    calls BIGINT NOT NULL,
    estimated BIGINT NOT NULL,
    input BIGINT NOT NULL,
    cached BIGINT NOT NULL,
    cache_write BIGINT NOT NULL,
    audio_input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    reasoning BIGINT NOT NULL,
    audio_output BIGINT NOT NULL,
    images BIGINT NOT NULL,
    gpu_millis BIGINT NOT NULL,
    units BIGINT NOT NULL,
    pico BIGINT NOT NULL
);
CREATE INDEX sums_hour ON sums (hour);
CREATE INDEX sums_tenant ON sums (tenant, hour);

CREATE TABLE transfers (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    cause TEXT NOT NULL,
    debit TEXT NOT NULL,
    credit TEXT NOT NULL,
    units BIGINT NOT NULL,
    pico BIGINT NOT NULL,
    currency TEXT NOT NULL,
    reverses TEXT,
    invoice TEXT,
    note TEXT
);
CREATE UNIQUE INDEX transfers_reverses ON transfers (reverses) WHERE reverses IS NOT NULL;
CREATE INDEX transfers_debit ON transfers (debit, at, id);
CREATE INDEX transfers_credit ON transfers (credit, at, id);
CREATE INDEX moves_debit ON transfers (debit, at, id) WHERE cause <> 'call';
CREATE INDEX moves_credit ON transfers (credit, at, id) WHERE cause <> 'call';

CREATE TABLE accounts (
    name TEXT NOT NULL,
    currency TEXT NOT NULL,
    debit_units BIGINT NOT NULL,
    debit_pico BIGINT NOT NULL,
    credit_units BIGINT NOT NULL,
    credit_pico BIGINT NOT NULL,
    PRIMARY KEY (name, currency)
);

CREATE TABLE invoices (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    begins BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    issued BIGINT NOT NULL,
    currency TEXT NOT NULL,
    units BIGINT NOT NULL,
    pico BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX invoices_tenant ON invoices (tenant, begins);
