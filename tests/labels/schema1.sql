CREATE TABLE dead_letters (
    letter_no INTEGER NOT NULL,
    dead_letter_id TEXT NOT NULL,
    submission VARCHAR(64) NOT NULL,
    stage TEXT NOT NULL,
    collection TEXT NOT NULL,
    query_id TEXT NOT NULL,
    query_text TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    failed_us BIGINT NOT NULL,
    subject TEXT NOT NULL,
    headers TEXT NOT NULL,
    payload BLOB NOT NULL,
    state TEXT NOT NULL,
    closed_us BIGINT,
    PRIMARY KEY (letter_no),
    CONSTRAINT known_state CHECK (state IN ('open', 'replaying', 'replayed', 'resolved')),
    UNIQUE (dead_letter_id)
);
CREATE INDEX dead_letters_by_query ON dead_letters (collection, query_id);
CREATE INDEX dead_letters_by_state ON dead_letters (state, collection, letter_no);
CREATE INDEX dead_letters_by_submission ON dead_letters (submission);
CREATE TABLE judges (
    judge_no INTEGER NOT NULL,
    judge_hash VARCHAR(64) NOT NULL,
    model TEXT NOT NULL,
    revision TEXT NOT NULL,
    quantisation TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    strategy TEXT NOT NULL,
    scale TEXT NOT NULL,
    decoding TEXT NOT NULL,
    PRIMARY KEY (judge_no),
    UNIQUE (judge_hash)
);
CREATE TABLE ledger_meta (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE passages (
    collection TEXT NOT NULL,
    text_hash VARCHAR(32) NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (collection, text_hash)
);
CREATE TABLE queries (
    query_no INTEGER NOT NULL,
    collection TEXT NOT NULL,
    query_id TEXT NOT NULL,
    text TEXT NOT NULL,
    attributes TEXT NOT NULL,
    reference_answers TEXT NOT NULL,
    submitted_us BIGINT,
    committed_us BIGINT NOT NULL,
    index_version TEXT NOT NULL,
    judgments INTEGER NOT NULL,
    pairs INTEGER NOT NULL,
    missing INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    PRIMARY KEY (query_no),
    CONSTRAINT queries_by_id UNIQUE (collection, query_id)
);
CREATE INDEX queries_statistics ON queries (collection, judgments, pairs, missing, cached, prompt_tokens);
CREATE TABLE candidate_sets (
    query_no INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (query_no),
    FOREIGN KEY(query_no) REFERENCES queries (query_no)
);
CREATE TABLE judgments (
    query_no INTEGER NOT NULL,
    passage_id TEXT NOT NULL,
    judgment_key VARCHAR(64) NOT NULL,
    generation INTEGER NOT NULL,
    judge_no INTEGER NOT NULL,
    grade INTEGER,
    min_grade INTEGER,
    probabilities TEXT,
    expected_relevance FLOAT,
    entropy FLOAT,
    p_relevant FLOAT,
    calibration TEXT,
    utility TEXT,
    missing_reason TEXT,
    missing_detail TEXT,
    judged_us BIGINT NOT NULL,
    cached BOOLEAN NOT NULL,
    raw_reply TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    PRIMARY KEY (query_no, passage_id, judgment_key, generation),
    CONSTRAINT missing_is_never_a_grade CHECK ((grade IS NULL) = (missing_reason IS NOT NULL)),
    CONSTRAINT a_grade_has_its_probability CHECK ((grade IS NULL) = (p_relevant IS NULL)),
    FOREIGN KEY(query_no) REFERENCES queries (query_no),
    FOREIGN KEY(judge_no) REFERENCES judges (judge_no)
)
 WITHOUT ROWID;
