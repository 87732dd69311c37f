/** Traces over OTLP/HTTP, where a collector is configured; nothing at all where none is. */
import { Layer } from "effect"
import { FetchHttpClient } from "effect/http"
import { OtlpSerialization, OtlpTracer } from "effect/observability"
import { version } from "../../schemas/Version.ts"

/** Installs a tracer that sends spans in batches; what the collector does not take in time is dropped. */
export const tracing = (endpoint: string | null): Layer.Layer<never> =>
  endpoint === null
    ? Layer.empty
    : OtlpTracer.layer({
        url: `${endpoint.replace(/[/]$/, "")}/v1/traces`,
        resource: { serviceName: "postern-server", serviceVersion: version }
      }).pipe(Layer.provide([OtlpSerialization.layerJson, FetchHttpClient.layer]))
