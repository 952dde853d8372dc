// Uses the types that openapi-typescript generates from the OpenAPI document: it must compile.
import createClient from "openapi-fetch";
import type { components, operations, paths } from "./api.js";

declare const process: { env: Record<string, string | undefined> };

const client = createClient<paths>({
  baseUrl: "http://127.0.0.1:3000",
  headers: { "X-API-Key": process.env.PINFOLD_API_KEY ?? "" },
});

type Pin = components["schemas"]["Pin"];
type PinOptions = NonNullable<operations["createPin"]["requestBody"]>["content"]["application/json"];

export async function pin(cid: string, options: PinOptions): Promise<Pin | undefined> {
  const { data, error, response } = await client.POST("/api/v3/files/pin/{cid}", {
    params: { path: { cid }, header: { Prefer: "wait=5" } },
    body: options,
  });
  if (error) throw new Error(`${response.status} ${error.code ?? ""}: ${error.message}`);
  return response.status === 201 ? (data as Pin) : undefined;
}

export async function names(): Promise<string[]> {
  const names: string[] = [];
  let cursor: string | undefined;
  do {
    const { data } = await client.GET("/api/v3/users/me/uploads", { params: { query: { limit: 100, cursor } } });
    for (const upload of data?.uploads ?? []) names.push(upload.name ?? upload.cid);
    cursor = data?.nextCursor ?? undefined;
  } while (cursor);
  return names;
}

export async function remove(cid: string): Promise<boolean> {
  const { data } = await client.DELETE("/api/v3/files/remove/{cid}", { params: { path: { cid } } });
  return data?.removed ?? false;
}
