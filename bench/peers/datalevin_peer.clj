;; Datalevin on the workloads of a task file: java -cp JAR clojure.main datalevin_peer.clj TASK.json
;;
;; Prints a JSON line for each: {workload, median_ms, n, rows, checksum}.  The same protocol and the
;; same checksum as measure.py; everything in memory, result caches off.
(require '[clojure.edn :as edn]
         '[clojure.java.io :as io]
         '[clojure.string :as str]
         '[datalevin.core :as d]
         '[datalevin.query.cache :as qcache]
         '[jsonista.core :as json])

(def task (json/read-value (slurp (first *command-line-args*)) json/keyword-keys-object-mapper))
(def protocol (:protocol task))
(def suites (set (:suites task)))

(defn now [] (/ (System/nanoTime) 1e6))

(defn plain [value]
  (let [text (if (keyword? value) (subs (str value) 1) (str value))]
    (if (str/starts-with? text ":") (subs text 1) text)))

(defn cell [value kind]
  (if (= kind \n)
    (let [text (String/format java.util.Locale/ROOT "%.6e" (object-array [(double value)]))
          [mantissa exponent] (str/split text #"e")]
      (str mantissa "e" (Integer/parseInt exponent)))
    (plain value)))

(defn answer [rows kinds]
  (let [lines (sort (map (fn [row] (str/join "\t" (map cell row kinds))) rows))
        bytes (.digest (java.security.MessageDigest/getInstance "SHA-256")
                       (.getBytes ^String (str/join "\n" lines) "UTF-8"))]
    {:rows (count lines)
     :checksum (subs (apply str (map #(format "%02x" %) bytes)) 0 16)}))

(defn median [times]
  (let [sorted (vec (sort times))
        n (count sorted)
        half (quot n 2)]
    (if (odd? n) (sorted half) (/ (+ (sorted (dec half)) (sorted half)) 2))))

(defn calls-ms [work seconds]
  (let [began (now)]
    (loop [calls 0]
      (if (< (- (now) began) (* 1000 seconds))
        (do (work) (recur (inc calls)))
        (/ (- (now) began) (max calls 1))))))

(defn measured [work]
  (work)
  ;; the JVM compiles while it warms up, which takes it longer than others
  (calls-ms work (* 4 (:warm_s protocol)))
  {:median_ms (median (doall (repeatedly (:samples protocol) #(calls-ms work (:sample_s protocol)))))
   :n (:samples protocol)})

(defn done [workload time found]
  (println (json/write-value-as-string (merge {:workload workload} time found)))
  (flush))

(defn value-type [kind] (keyword "db.type" kind))

(defn schema-of [data]
  (into {}
        (for [[attr a] (:schema data)]
          [attr (cond-> {:db/valueType (value-type (:kind a))}
                  (:many a) (assoc :db/cardinality :db.cardinality/many)
                  (:unique a) (assoc :db/unique :db.unique/identity))])))

(def data-of
  (memoize
    (fn [dataset]
      (let [file (io/file (:folder task) (get (:datasets task) (keyword dataset)))]
        (json/read-value (slurp file) json/keyword-keys-object-mapper)))))

(defn tx-maps [data entities]
  (let [keywords (set (for [[attr a] (:schema data) :when (= "keyword" (:kind a))] attr))]
    (mapv (fn [one]
            (into {} (for [[attr value] one :when (not= value [])]
                       [attr (if (keywords attr) (keyword value) value)])))
          entities)))

(defn empty-conn [data]
  (d/create-conn nil (schema-of data) {:kv-opts {:inmemory? true} :cache-limit 0}))

(defn fill [conn transactions]
  (doseq [tx transactions] (d/transact! conn tx))
  conn)

(defn ids-of [db data]
  (if (:ids data)
    (zipmap (sort (map :e (d/datoms db :ave :name))) (:ids data))
    (into {} (map (juxt :e :v)) (d/datoms db :ave :id))))

(def get-loaded
  (memoize
    (fn [dataset]
      (let [data (data-of dataset)
            conn (fill (empty-conn data) (map #(tx-maps data %) (partition-all 1000 (:entities data))))]
        (doseq [batch (partition-all 1000 (:links data))]
          (d/transact! conn (mapv (fn [[e a v]] [:db/add [:id e] (keyword a) [:id v]]) batch)))
        (doseq [step (:updates data)] (d/transact! conn (tx-maps data step)))
        (let [ids (ids-of @conn data)]
          {:db @conn :ids ids :eids (into {} (map (fn [[e id]] [id e])) ids)})))))

(defn as-longs [value]
  (cond (integer? value) (long value)
        (coll? value) (mapv as-longs value)
        :else value))

(defn run-query [{:keys [name dataset query rules inputs kinds rows checksum]}]
  (let [{:keys [db ids eids]} (get-loaded dataset)
        form (edn/read-string query)
        values (map #(if (contains? % :id) (eids (long (:id %))) (as-longs (:value %))) inputs)
        arguments (concat [db] (when rules [(edn/read-string rules)]) values)
        ask #(apply d/q form arguments)
        named (map (fn [row] (map (fn [value kind] (if (= kind \e) (ids value) value)) row kinds)) (ask))
        found (answer named kinds)]
    (if (= found {:rows rows :checksum checksum})
      (done name (measured #(count (ask))) found)
      (done name {:median_ms nil :n 0} found))))

(defn node-row [node names]
  (for [name names]
    (let [value (get node (keyword name) [])]
      (str/join "," (map plain (if (coll? value) (sort value) [value]))))))

(defn nodes-of [tree] (cons tree (mapcat nodes-of (:follows tree))))

(defn of-nodes [nodes names]
  (answer (map #(node-row % names) nodes) (repeat (count names) \v)))

(defn pull []
  (let [{:keys [one many six all lookup]} (:pull task)
        reads (mapv long (:reads (:pull task)))
        tree (get-loaded "tree")
        root ((:eids tree) 1)]
    (doseq [[name pattern names] [["pull-one" one ["name"]] ["pull-many" many six]]]
      (let [form (edn/read-string pattern)
            work #(d/pull (:db tree) form root)]
        (done name (measured work) (of-nodes (nodes-of (work)) names))))
    (let [entities (keys (:ids tree))
          work #(mapv (fn [e] (d/pull (:db tree) '[*] e)) entities)]
      (done "pull-wildcard" (measured work) (of-nodes (work) all)))
    (let [{:keys [db eids]} (get-loaded "people")
          entities (mapv eids reads)
          whole #(doall (d/pull-many db '[*] entities))
          query (edn/read-string lookup)]
      (done "pull-many-1000-wildcard" (measured whole) (of-nodes (whole) all))
      (doseq [[name read] [["find-datoms-1000" (fn [_ e] (:v (first (d/datoms db :eav e :name))))]
                           ["lookup-entity-x1000" (fn [id _] (:name (d/entity db [:id id])))]
                           ["lookup-pull-x1000" (fn [id _] (:name (d/pull db [:name] [:id id])))]
                           ["lookup-q-x1000" (fn [id _] (d/q query db id))]
                           ["lookup-datoms-x1000"
                            (fn [id _]
                              (:v (first (d/datoms db :eav (:e (first (d/datoms db :ave :id id))) :name))))]]]
        (let [work #(mapv read reads entities)]
          (done name (measured work) (answer (map vector reads (work)) "vv")))))))

(defn ages [db] (answer (d/q '[:find ?id ?a :where [?e :id ?id] [?e :age ?a]] db) "vv"))

;; a connection is written to, so each run has one of its own; making it is not measured
(defn whole [name make transactions check]
  (let [last-conn (atom nil)
        once (fn []
               (when @last-conn (d/close @last-conn))
               (let [conn (make)
                     began (now)]
                 (fill conn transactions)
                 (reset! last-conn conn)
                 (- (now) began)))
        times (doall (repeatedly (:runs protocol) once))]
    (done name {:median_ms (median times) :n (count times)} (check @@last-conn))
    @last-conn))

(defn transact []
  (let [data (data-of "people")
        people (count (:entities data))
        all (tx-maps data (:entities data))
        five [:name :last-name :sex :age :salary]
        simple (mapv #(select-keys % (cons :id five)) all)
        make #(empty-conn data)
        known #(fill (make) [(mapv (fn [one] {:id (:id one)}) simple)])
        full #(fill (make) (map vec (partition-all 1000 all)))]
    (whole "add-1" known
           (for [one simple attr five] [[:db/add [:id (:id one)] attr (one attr)]]) ages)
    (whole "add-5" make (map vector simple) ages)
    (whole "add-all" make [simple] ages)
    (whole "retract-5" full (map (fn [one] [[:db/retractEntity [:id (:id one)]]]) simple) ages)
    (doseq [size [1 10 100 1000]]
      (whole (str "load-" size) make (map vec (partition-all size all)) ages))
    (doseq [[name change] [["tx-latency-new-entity"
                            (fn [n] {:id (+ people n 1) :name "Ivan" :age (rem n 100) :salary n})]
                           ["tx-latency-update" (fn [n] {:id (inc (rem n people)) :age (+ 100 n)})]]]
      (let [conn (full)
            changes (mapv change (range (:latencies task)))
            times (mapv (fn [one]
                          (let [began (now)]
                            (d/transact! conn [one])
                            (- (now) began)))
                        changes)
            ids (distinct (map :id changes))]
        (done name {:median_ms (median times) :n (count times)}
              (answer (map (fn [id] [id (:age (d/entity @conn [:id id]))]) ids) "vv"))
        (d/close conn)))))

(defn million []
  (let [data (data-of "million")
        transactions (mapv vec (partition-all 1000 (tx-maps data (:entities data))))
        conn (whole "1m-load-1000" #(empty-conn data) transactions
                    (fn [db] {:rows (count (d/datoms db :eav)) :checksum ""}))]
    (let [ids (ids-of @conn data)]
      {:db @conn :ids ids :eids {}})))

(binding [qcache/*cache?* false]
  (when (suites "load")
    (let [loaded (million)
          usual get-loaded]
      (alter-var-root #'get-loaded (fn [_] #(if (= % "million") loaded (usual %))))))
  (doseq [workload (:workloads task)] (run-query workload))
  (when (suites "pull") (pull))
  (when (suites "transact") (transact)))
(System/exit 0)
