-- How many of a sum's calls are in `spent`: the version before this one raises sums alone. Where the two differ, sums are
-- read. First of all: it holds up whoever posts meanwhile, so that what is carried is in `spent`.
ALTER TABLE sums ADD COLUMN carried BIGINT NOT NULL DEFAULT 0;
-- Charges summed up by the day and without tags, for budgets: clients choose tags, and there may be one for each call. What
-- may be missing is '', and what is there begins with '=': so all of it together can be the key on both databases.
CREATE TABLE spent (
    tenant TEXT NOT NULL,
    day BIGINT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    price TEXT NOT NULL,
    plan TEXT NOT NULL,
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
    pico BIGINT NOT NULL,
    PRIMARY KEY (tenant, day, key, model, price, plan, currency)
);
INSERT INTO spent SELECT tenant, hour - hour % 86400000, COALESCE('=' || key, ''), model, COALESCE('=' || price, ''),
    COALESCE('=' || plan, ''), currency, CAST(SUM(calls) AS BIGINT), CAST(SUM(estimated) AS BIGINT),
    CAST(SUM(input) AS BIGINT), CAST(SUM(cached) AS BIGINT), CAST(SUM(cache_write) AS BIGINT),
    CAST(SUM(audio_input) AS BIGINT), CAST(SUM(output) AS BIGINT), CAST(SUM(reasoning) AS BIGINT),
    CAST(SUM(audio_output) AS BIGINT), CAST(SUM(images) AS BIGINT), CAST(SUM(gpu_millis) AS BIGINT),
    CAST(SUM(units) AS BIGINT)
        + (CAST(SUM(pico / 1000000) AS BIGINT) + CAST(SUM(pico % 1000000) AS BIGINT) / 1000000) / 1000000,
    (CAST(SUM(pico / 1000000) AS BIGINT) + CAST(SUM(pico % 1000000) AS BIGINT) / 1000000) % 1000000 * 1000000
        + CAST(SUM(pico % 1000000) AS BIGINT) % 1000000
    FROM sums WHERE 1 = 1 GROUP BY tenant, hour - hour % 86400000, key, model, price, plan, currency;
UPDATE sums SET carried = calls;
CREATE INDEX sums_astray ON sums (tenant, hour) WHERE carried <> calls;
