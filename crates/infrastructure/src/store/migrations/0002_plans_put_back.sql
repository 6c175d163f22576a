-- A version of a plan that is put back in force keeps the times at which it was before: `created` is the last of them, by
-- which versions are in order, and this has those before it, oldest first, with commas between. NULL: there are none.
ALTER TABLE plans ADD COLUMN earlier TEXT;
